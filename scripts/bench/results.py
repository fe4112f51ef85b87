"""The file of results: one JSON object a line, appended as soon as a cell is done."""

import json
import os


class Results:
    """Of several lines of one cell the last counts: a group that was interrupted is measured again as a whole."""

    def __init__(self, path):
        self.path = path
        self.records = {}
        self.machine = None
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                for line in file:
                    try:
                        self._take(json.loads(line))
                    except json.JSONDecodeError:
                        pass  # the last line of a run that was killed

    def _take(self, record):
        if record["kind"] == "machine":
            self.machine = record
        else:
            self.records[key(record)] = record

    def append(self, record):
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(record)

    def cells(self):
        return [record for record in self.records.values() if record["kind"] == "cell"]

    def frozen(self):
        return [record for record in self.records.values() if record["kind"] == "frozen"]

    def write_to(self, path):
        """What counts, in order."""
        with open(path, "w", encoding="utf-8") as file:
            for record in [self.machine, *self.records.values()]:
                file.write(json.dumps(record, sort_keys=True) + "\n")


def key(record):
    if record["kind"] == "frozen":
        return ("frozen", record["variant"], record["repeat"])
    return ("cell", record["load"], record["protocol"], record["clients"], record["way"], record["repeat"])
