"""Lists what became suspect, and what was found: usage: declared.py STATUS REPORT (answers of the admin interface)."""
import collections
import json
import sys

NAMES_MAX = 3

with open(sys.argv[1], encoding="utf-8") as file:
    suspects = json.load(file)["suspect_tables"]
with open(sys.argv[2], encoding="utf-8") as file:
    findings = json.load(file)["findings"]


def listed(title, items):
    """Reasons, the most frequent first, each with how many things it is about and the names of a few."""
    by_reason = collections.defaultdict(list)
    for reason, name in items:
        by_reason[reason].append(name)
    print(f"{title}: {len(items)}")
    for reason, names in sorted(by_reason.items(), key=lambda entry: -len(entry[1])):
        more = ", ..." if len(names) > NAMES_MAX else ""
        print(f"{len(names):6} {reason} ({', '.join(names[:NAMES_MAX])}{more})")


listed("tables that became suspect, by reason", [(suspect["reason"], suspect["table"]) for suspect in suspects])
listed(
    "findings",
    [
        (
            f"{finding['kind']}: {finding['message'] or finding['column']}",
            finding["table"] or " ".join((finding["sql"] or "").split())[:70] or "no table",
        )
        for finding in findings
    ],
)
