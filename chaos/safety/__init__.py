"""The way back from every fault: on disk before the harm, done in time whoever dies, and all of it noted."""
