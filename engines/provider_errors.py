"""What the errors of servers with an Images API mean, by the codes in them or by their status.

Messages are ignored: they may quote the prompt or the key.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from engines import EngineError, PermanentError, TransientError, answers, remote
from engines.remote import RemoteResponse, as_dict, as_list

# Errors that take longer may come from a server that has made an image first.
QUICK_SECONDS = 5
TRANSIENT = ("engine_busy", "engine_unavailable")

# Timeouts of the server, and what gateways answer for a server that did not; 520 to 529 are
# Cloudflare's and others'.
GATEWAY_STATUSES = (408, 502, 504, *range(520, 530))
# What gateways say of their own requests, and the headers of some of their answers.
GATEWAY_ERROR = re.compile(
    r"do_request|bad_response|upstream|gateway|litellm|(one|new)_api",
    re.IGNORECASE,
)
GATEWAY_HEADERS = ("x-litellm-", "x-portkey-", "x-oneapi-", "x-new-api-", "cf-aig-")

# Parts of error codes of OpenAI, Azure, Google, DashScope, Volcengine, One API and others.
ACCOUNT_ERROR = re.compile(
    r"billing|insufficient_?(\w+_)?(quota|balance|credit|fund)|credit_balance|balance_?not_?enough"
    r"|not_?enough_?(\w+_)?(balance|credit|token)|(spend|usage)_limit|arrear|overdue|deactivated"
    r"|unpurchased|not_?open|pre_consume|budget_?exceeded|exceeded_current_quota"
    r"|payment_?required|api_?key",
    re.IGNORECASE,
)
CONTENT_ERROR = re.compile(
    r"content_?(policy|filter)|policy_?violation|moderat|safety|sensitive|inspection|unsafe"
    r"|prohibited|nsfw|risk_?detect|image_generation_user_error|illegal_?(prompt|image|content)"
    r"|(text|image|prompt|content)_?illegal|inappropriate|flagged|censor|infring|copyright"
    r"|recitation|blocklist",
    re.IGNORECASE,
)
BUSY_ERROR = re.compile(
    r"(rate|request)_?limit|too_?many|throttl|overload|capacity|busy|resource_?exhausted"
    r"|concurrency",
    re.IGNORECASE,
)
# Codes that say nothing: a status, or that there is none.
EMPTY_CODE = re.compile(r"[1-5][0-9][0-9]|none|null|error|unknown(_error)?", re.IGNORECASE)
NO_WORD = re.compile(r"\W+")
STATUS_CODE = re.compile(r"[45][0-9][0-9]")

# The numbers of Zhipu and Kling, whose HTTP status for an account in arrears is 429; and those of
# Volcengine's visual API.
KNOWN_CODES = {
    "engine_account": "1000 1001 1002 1003 1004 1100 1101 1102 1103 1110 1111 1112 1113 1120 1121"
    " 1304 1308 1309 1310 1311",
    "engine_refused": "1211 1212 1213 1214 1215 1261",
    "content_refused": "1300 1301 50411 50412 50413 50511 50512",
    "engine_busy": "1302 1303 1305 1312",
}
# Those of MiniMax, in `base_resp` of an answer with status 200.
MINIMAX_CODES = {
    "engine_account": "1004 1008 2049 2056",
    "engine_refused": "1042 2013 2037",
    "content_refused": "1026 1027",
    "engine_busy": "1002 1039 1041",
    "engine_unavailable": "1000 1001 1013 1024 1033",
}

# Names of fields, in lower case.
CODE_FIELDS = ("code", "type", "status_code", "error_code", "errorcode")
ERROR_FIELDS = ("error", "errors", "base_resp", "detail", "output")
# Fields that say why there is no picture, if not of an error.
REASON_NAME = re.compile(r"reason|stat(us|e)$", re.IGNORECASE)


class ProviderError:
    """An answer without a picture, and what it means by the table `errors` of the model."""

    def __init__(self, response: RemoteResponse, errors: Mapping[str, str]):
        self.response = response
        self.body = None
        with suppress(PermanentError):
            self.body = answers.parse(response)
        self.codes = error_codes(self.body, response.status)
        self.text = " ".join(self.codes)
        self.status = self.real_status()
        self.declared = self.declared_kind(errors)
        self.kind = self.declared or self.known_kind() or self.kind_of_status()

    def real_status(self) -> int:
        """Return the HTTP status; some gateways send that of an error as a code only."""
        status = self.response.status
        if status >= 300:
            return status
        statuses = filter(STATUS_CODE.fullmatch, self.codes)
        return int(next(statuses, status))

    def declared_kind(self, errors: Mapping[str, str]) -> str:
        table = {code.casefold(): kind for code, kind in errors.items()}
        for code in (*self.codes, str(self.status)):
            kind = table.get(code.casefold())
            if kind:
                return kind
        return ""

    def known_kind(self) -> str:
        """Return what the codes mean; "" if they are not known."""
        is_minimax = "base_resp" in as_dict(self.body)
        table = MINIMAX_CODES if is_minimax else KNOWN_CODES
        for kind, numbers in table.items():
            if set(self.codes) & set(numbers.split()):
                return kind
        if ACCOUNT_ERROR.search(self.text):
            return "engine_account"
        if self.status == 451 or CONTENT_ERROR.search(self.text):
            return "content_refused"
        return ""

    def kind_of_status(self) -> str:
        status = self.status
        if status == 429 or (status < 500 and self.says_busy):
            return "engine_busy"
        if status in (401, 402, 403):
            return "engine_account"
        if status == 408 or status >= 500:
            return "engine_unavailable"
        return "engine_refused" if status >= 400 else "engine_error"

    @property
    def says_busy(self) -> bool:
        return bool(BUSY_ERROR.search(self.text))

    @property
    def is_of_gateway(self) -> bool:
        """Tell whether it comes from a gateway, which need not know what the provider did."""
        names = [name.lower() for name in self.response.headers]
        has_header = any(name.startswith(GATEWAY_HEADERS) for name in names)
        return has_header or bool(GATEWAY_ERROR.search(self.text))

    def is_free(self, seconds: float) -> bool:
        """Tell whether an error that may be temporary certainly was not charged.

        A quick error with a code of the provider's own was not.
        """
        if self.declared:
            return True
        if seconds > QUICK_SECONDS:
            return False
        if self.kind == "engine_busy":
            return True
        if self.status in GATEWAY_STATUSES or self.is_of_gateway:
            return False
        if self.status == 503:
            return self.says_busy
        has_code = not all(map(EMPTY_CODE.fullmatch, self.codes))
        return self.status >= 500 and has_code

    def exception(self) -> EngineError:
        """Return the exception to raise."""
        status = str(self.response.status)
        if self.response.status < 300:
            status = f"{status} without a picture"
        task = self.task()
        if task:
            detail = f"{status}, but with the task {task}"
            return PermanentError("engine_task", detail, shown=f"task {task}")
        if self.kind in TRANSIENT:
            detail = f"{status} {self.text}".strip()
            return TransientError(self.kind, detail, self.response.retry_after)
        if self.kind != "engine_refused":
            return PermanentError(self.kind, f"{status} {self.text}".strip())
        shown = f"{self.text} {refused_parameter(self.body)}".strip()
        return PermanentError(self.kind, f"{status} {shown}".strip(), shown)

    def task(self) -> str:
        """Return the id of the task that was begun instead of a picture; "" if there is none."""
        is_unexplained = self.response.status < 300 and self.kind == "engine_error"
        return answers.find_task(self.body) if is_unexplained else ""


def refused_parameter(body: Any) -> str:
    for error in error_objects(body):
        name = remote.identifier(error.get("param"))
        if name:
            return name
    return ""


def error_codes(body: Any, status: int) -> list[str]:
    """Return the codes in an answer, without those for success and the status itself."""
    codes = []
    ignored = ("", "0", str(status))
    values = [value for error in error_objects(body) for value in code_values(error)]
    for value in [*values, *refusals(body)]:
        code = code_text(value)
        if code not in ignored and code not in codes:
            codes.append(code)
    return codes


def code_text(value: Any) -> str:
    is_code = isinstance(value, str | int) and not isinstance(value, bool)
    return remote.identifier(str(value)) if is_code else ""


def code_values(error: dict) -> Iterator[Any]:
    """Yield what may be a code in the object of an error."""
    fields = {name.lower(): value for name, value in error.items()}
    for name in CODE_FIELDS:
        yield fields.get(name)
    message = fields.get("message")
    if isinstance(message, str):
        # Google's word for the HTTP status.
        yield fields.get("status")
        # LiteLLM's only mark in many of its errors, as in "litellm.RateLimitError: …".
        if message.startswith("litellm."):
            yield message.partition(":")[0]
    inner = fields.get("inner_error") or fields.get("innererror")
    yield as_dict(inner).get("code")
    for detail in as_list(fields.get("details")):
        yield as_dict(detail).get("reason")


def refusals(body: Any) -> Iterator[str]:
    """Yield a code for each field, of an error or not, that says that the content was refused."""
    for entry in answers.objects_in(body):
        # OpenRouter refuses prompts with 403, and says why.
        if as_dict(entry.get("metadata")).get("reasons") or entry.get("raiFilteredReason"):
            yield "moderation"
        for name, value in entry.items():
            if REASON_NAME.search(name) and CONTENT_ERROR.search(str(value)):
                yield "moderation"


def error_objects(body: Any) -> list[dict]:
    """Return the objects that describe an error; the outermost if there is none in it."""
    found = []
    for entry in answers.objects_in(body):
        for name, value in entry.items():
            if name.lower() in ERROR_FIELDS:
                found += map(as_error, as_list(value) or [value])
    found = [error for error in found if any(error.values())]
    return found or [as_dict(part) for part in as_list(body) or [body]]


def as_error(value: Any) -> dict:
    """Return an error as an object; some servers have only words for it, or JSON as text."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, str):
        return {"code": known_words(value)}
    error = as_dict(value)
    return as_dict(error.get("error")) or error


def known_words(text: str) -> str:
    """Return the words of an error that are known; "" if none is, as it may quote the prompt.

    Only a code says that the server is busy: on that word of a message nothing is sent again.
    """
    if BUSY_ERROR.search(remote.identifier(text)):
        return text
    words = NO_WORD.sub("_", text)
    match = ACCOUNT_ERROR.search(words) or CONTENT_ERROR.search(words)
    return match[0] if match else ""
