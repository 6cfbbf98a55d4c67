#!/usr/bin/python3
"""
Shows a resource that fences: a database that refuses whoever writes with a fencing number (token)
smaller than one it has seen. It compares and remembers the number in the transaction of the write,
so nothing can come between.

Exit status: 0 written, 1 the database failed, 2 wrong usage, 3 refused: the token is stale.
"""

import argparse
import sqlite3
import sys

EXIT_FAILED = 1
EXIT_STALE = 3

TOKEN_MAX = 2**63 - 1  # SQLite's integers


def token(text):
    number = int(text)
    if not 1 <= number <= TOKEN_MAX:
        raise ValueError
    return number


def write(db, resource, number, text):
    """Returns 0 when written, else the highest token seen, and nothing has changed."""
    # IMMEDIATE takes the database's write lock before the comparison, not after it.
    db.execute("BEGIN IMMEDIATE")
    db.execute("CREATE TABLE IF NOT EXISTS fence (resource TEXT PRIMARY KEY, token INTEGER)")
    db.execute("CREATE TABLE IF NOT EXISTS entry (resource TEXT, token INTEGER, text TEXT)")
    db.execute("INSERT OR IGNORE INTO fence VALUES (?, 0)", (resource,))
    raised = db.execute("UPDATE fence SET token = ? WHERE resource = ? AND token <= ?",
                        (number, resource, number))
    if raised.rowcount == 0:
        row = db.execute("SELECT token FROM fence WHERE resource = ?", (resource,)).fetchone()
        db.execute("ROLLBACK")
        return row[0]
    db.execute("INSERT INTO entry VALUES (?, ?, ?)", (resource, number, text))
    db.execute("COMMIT")
    return 0


def main():
    parser = argparse.ArgumentParser(description="A write to SQLite, fenced by a token.")
    parser.add_argument("--db", required=True, metavar="FILE")
    parser.add_argument("--token", required=True, type=token, metavar="N")
    parser.add_argument("--resource", default="main", metavar="NAME",
                        help="what one lock protects: each has its own highest token")
    parser.add_argument("text", metavar="TEXT")
    args = parser.parse_args()

    try:
        # Without an isolation level the module begins no transactions of its own.
        db = sqlite3.connect(args.db, isolation_level=None)
        seen = write(db, args.resource, args.token, args.text)
    except sqlite3.Error as error:
        print("write.py: %s: %s" % (args.db, error), file=sys.stderr)
        return EXIT_FAILED
    if seen:
        print("write.py: refused: token %d is stale, %d has been here" % (args.token, seen),
              file=sys.stderr)
        return EXIT_STALE
    return 0


sys.exit(main())
