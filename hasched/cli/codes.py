"""The codes of errors that only the command line has: what `--json` shows where no manager has answered."""

from __future__ import annotations

CODES: dict[str, str] = {
    "bad_certificate": "the certificate can't be issued",
    "cluster_not_trusted": "whoever answers is not of this cluster, by its certificate",
    "cluster_unreachable": "no manager answered",
    "command_unusable": "a command that another package brings can't be loaded",
    "consent_missing": "`hasched chaos`: the cluster isn't marked as one to break, and nobody typed its name",
    "file_unusable": "a file or directory isn't there, or we may not use it",
    "invalid_config": "the configuration is not valid",
    "invalid_field": "a key of a document is not valid",
    "invalid_argument": "the value of an option or argument can't be used",
    "machine_lacks": "`hasched chaos`: this machine, or this user on it, can't do what a fault needs",
    "not_delivered": "`hasched notification test`: an attempt has failed; it is made again",
    "not_confirmed": "what can't be undone was not confirmed",
    "output_lost": "the job succeeded, and its output could not be read",
    "unsettled": "`hasched chaos`: the cluster did not get ready in time",
    "usage": "the command line can't be understood",
    "wait_timed_out": "the wait is over, and the job is not",
}
