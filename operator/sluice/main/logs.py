"""Log lines: JSON objects for machines, or plain text for people. Each says which object and revision it is about."""

import json
import logging
import sys
from datetime import UTC, datetime

from sluice.controller.context import log_context


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **log_context(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class PlainLines(logging.Formatter):
    """Text."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        about = " ".join(f"[{value}]" for value in log_context().values() if value)
        line = f"{_time(record)} {record.levelname:7} {about}{' ' if about else ''}{record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up(log_format: str, level: str) -> None:
    """Send everything to standard error in one format. Libraries speak up from WARNING on, unless we debug."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else PlainLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for library in ("kopf", "kopf.objects", "aiohttp", "asyncio", "botocore", "boto3", "urllib3", "kubernetes"):
        logging.getLogger(library).setLevel("INFO" if level == "DEBUG" else max("WARNING", level, key=_severity))
    # boto3's debug lines hold request bodies and credentials' parts; they are never wanted here.
    logging.captureWarnings(True)


def _severity(level: str) -> int:
    return logging.getLevelNamesMapping()[level]


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
