"""Every error a client can get: its code, its HTTP status and its sentence in both languages.

An ApiError is raised anywhere by its code; `web/responses.py` alone turns it into an HTTP answer.
"""

# code: (HTTP status, Chinese, English). The codes are part of the API and listed in openapi.yaml.
ERRORS = {
    "bad_request": (400, "请求无效", "Bad request"),
    "invalid_input": (400, "请求参数错误", "Some fields are not valid"),
    "invalid_json": (
        400,
        "请求体必须是 JSON 对象，且 Content-Type 为 application/json",
        "The body must be a JSON object sent with Content-Type: application/json",
    ),
    "token_missing": (401, "未授权：缺少登录令牌", "Log in first: no token was sent"),
    "token_invalid": (401, "登录令牌无效，请重新登录", "The token is not valid; log in again"),
    "token_expired": (401, "登录令牌已过期，请重新登录", "The token has expired; log in again"),
    "key_invalid": (401, "API 密钥无效或已过期", "The API key is not valid, or has expired"),
    "wrong_credentials": (401, "用户名或密码错误", "Wrong user name or password"),
    "account_disabled": (403, "该账号已被停用", "This account is disabled"),
    "wrong_password": (403, "密码错误", "Wrong password"),
    "key_not_allowed": (
        403,
        "API 密钥不能执行此操作，请登录后操作",
        "An API key may not do this; log in instead",
    ),
    "scope_missing": (
        403,
        "该 API 密钥没有此操作的权限",
        "This API key lacks the scope that this call needs",
    ),
    "link_invalid": (403, "链接无效或已过期", "The link is invalid or has expired"),
    "forbidden": (403, "无权访问", "You may not see this"),
    "not_found": (404, "资源不存在", "Not found"),
    "method_not_allowed": (405, "该地址不支持此请求方法", "This address does not take that method"),
    "request_timeout": (408, "请求超时", "The request did not arrive in time"),
    "username_taken": (409, "用户名已存在", "That user name is taken"),
    "email_taken": (409, "邮箱已被注册", "That email is already registered"),
    "too_many_keys": (
        409,
        "API 密钥过多，请先删除不用的",
        "Too many API keys; revoke one that is not used",
    ),
    "key_reused": (
        409,
        "该 Idempotency-Key 已用于另一个请求",
        "That Idempotency-Key was used for another request",
    ),
    "prompt_blocked": (400, "提示词包含禁用词", "The prompt contains a blocked word"),
    "already_finished": (409, "该任务已结束", "That generation is finished already"),
    "image_deleted": (410, "图像已删除", "That image was deleted"),
    "precondition_failed": (
        412,
        "文件不是 If-Match 所指的那一个",
        "The file is not the one that If-Match names",
    ),
    "payload_too_large": (413, "请求体过大", "The request is too large"),
    "range_not_satisfiable": (416, "请求的范围无效", "That range is not in the file"),
    "too_many_attempts": (
        429,
        "登录失败次数过多，请稍后再试",
        "Too many failed log-ins; try again later",
    ),
    "too_many_registrations": (
        429,
        "该地址注册次数过多，请稍后再试",
        "Too many registrations from this address; try again later",
    ),
    "too_many_uploads": (
        429,
        "上传次数过多，请稍后再试",
        "Too many uploads; try again later",
    ),
    "too_many_active_jobs": (
        429,
        "未完成的任务过多，请等待其中一些完成",
        "Too many unfinished generations; wait for some to finish",
    ),
    "quota_spent": (429, "今日的生成额度已用完", "Today's quota of images is used up"),
    "key_quota_spent": (
        429,
        "该 API 密钥今日的生成额度已用完",
        "Today's images of this API key are used up",
    ),
    "too_many_submits": (
        429,
        "提交过于频繁，请稍后再试",
        "Too many images submitted within a minute; try again later",
    ),
    "too_many_searches": (
        429,
        "同时进行的搜索过多，请稍后再试",
        "Too many searches at a time; wait for one to end",
    ),
    "internal_error": (500, "服务器内部错误", "Something went wrong on our side"),
    "generation_failed": (500, "图像生成失败", "The image could not be made"),
    "database_unavailable": (
        503,
        "数据库暂时不可用，请稍后重试",
        "The database is unavailable; try again soon",
    ),
    "storage_unavailable": (
        503,
        "存储暂时不可用，请稍后重试",
        "The storage is unavailable; try again soon",
    ),
    "query_too_slow": (
        503,
        "查询耗时过长，请缩小范围（如 since、until）后重试",
        "The query takes too long; narrow it, for example by since and until",
    ),
    "not_ready": (503, "服务尚未就绪", "The service is not ready"),
    "queue_full": (503, "排队任务已满，请稍后重试", "The queue is full; try again later"),
    "server_busy": (503, "服务器繁忙，请稍后重试", "The server is busy; try again soon"),
}


class ApiError(Exception):
    """A request that cannot be granted: `code` is a key of ERRORS.

    `fields` maps each wrong field to (key of FIELDS, values for its sentence); `retry_after` is
    in seconds.
    """

    code = "bad_request"

    def __init__(
        self, code: str | None = None, *, fields: dict | None = None, retry_after: int | None = None
    ):
        self.code = code or self.code
        self.fields = fields or {}
        self.retry_after = retry_after
        super().__init__(self.code)


def error_text(code: str, language: str) -> str:
    return ERRORS[code][1 if language == "zh" else 2]
