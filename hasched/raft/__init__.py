"""Consensus: the engine, the journal, snapshots, transport and driver, behind `Replica`. Nothing else imports pysyncobj."""
