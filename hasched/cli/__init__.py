"""The command line. Commands import what they need when they run: `hasched job run` starts in the blink of an eye."""
