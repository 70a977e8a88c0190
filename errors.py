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
    "second_factor_required": (
        401,
        "请输入两步验证码",
        "Send the code of your second factor as well",
    ),
    "second_factor_wrong": (
        401,
        "两步验证码错误或已使用过",
        "The code of the second factor is wrong, or was used before",
    ),
    "login_code_invalid": (
        401,
        "登录凭据无效、已使用或已过期，请重新登录",
        "That log-in is not valid, was used or has run out; log in again",
    ),
    "oidc_state_invalid": (
        400,
        "登录流程无效或已过期，请重新登录",
        "That log-in was not begun in this browser, or too long ago; begin again",
    ),
    "oidc_denied": (403, "登录已取消或被拒绝", "The log-in was canceled or denied"),
    "oidc_failed": (502, "外部登录失败，请稍后重试", "The log-in service gave no valid answer"),
    "account_disabled": (403, "该账号已被停用", "This account is disabled"),
    "wrong_code": (403, "验证码错误或已使用过", "The code is wrong, or was used before"),
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
    "second_factor_not_set_up": (
        403,
        "管理员须先开启两步验证",
        "Admins must set up a second factor first",
    ),
    "email_unconfirmed": (
        403,
        "邮箱尚未验证，请使用邮件中的验证码",
        "Confirm your email first, by the code that was mailed to it",
    ),
    "code_invalid": (
        403,
        "验证码无效、已使用或已过期",
        "The code is wrong, used already, or has expired",
    ),
    "link_invalid": (403, "链接无效或已过期", "The link is invalid or has expired"),
    "registration_closed": (403, "本站不开放注册", "Registration is closed"),
    "invite_required": (403, "注册需要邀请码", "An invite code is needed to register"),
    "model_not_allowed": (403, "该账号不可使用此模型", "This account may not use that model"),
    "forbidden": (403, "无权访问", "You may not see this"),
    "not_found": (404, "资源不存在", "Not found"),
    "code_unknown": (404, "邀请码不存在", "There is no such invite code"),
    "mail_not_offered": (
        404,
        "本服务不发送邮件，请联系管理员获取验证码",
        "This server sends no mail; ask its operator for a code",
    ),
    "method_not_allowed": (405, "该地址不支持此请求方法", "This address does not take that method"),
    "request_timeout": (408, "请求超时", "The request did not arrive in time"),
    "username_taken": (409, "用户名已存在", "That user name is taken"),
    "email_taken": (409, "邮箱已被注册", "That email is already registered"),
    "too_many_keys": (
        409,
        "API 密钥过多，请先删除不用的",
        "Too many API keys; revoke one that is not used",
    ),
    "code_used": (
        409,
        "邀请码已被使用",
        "That invite code is used up, or was used by this account before",
    ),
    "limits_fixed": (
        409,
        "该账号的额度由管理员设定，不能兑换邀请码",
        "The operator has set the limits of this account; no code can change them",
    ),
    "identity_taken": (
        409,
        "该外部账号已关联到另一个账号",
        "That log-in belongs to another account",
    ),
    "second_factor_on": (409, "两步验证已开启", "The second factor is on already"),
    "second_factor_off": (409, "两步验证未开启", "The second factor is not on"),
    "key_reused": (
        409,
        "该 Idempotency-Key 已用于另一个请求",
        "That Idempotency-Key was used for another request",
    ),
    "prompt_blocked": (400, "提示词包含禁用词", "The prompt contains a blocked word"),
    "already_finished": (409, "该任务已结束", "That generation is finished already"),
    "code_expired": (
        410,
        "邀请码已过期或已撤销",
        "That invite code has expired, or was revoked",
    ),
    "input_gone": (
        409,
        "输入图片已不存在，无法重试",
        "A picture that it was made from is gone; it cannot be made again",
    ),
    "upload_deleted": (410, "该上传已删除", "That upload was deleted"),
    "no_image": (409, "没有可用的图像", "There is no finished image"),
    "too_many_shares": (
        409,
        "有效的分享链接过多，请先撤销一些",
        "Too many links are shared; revoke some first",
    ),
    "own_account": (
        409,
        "管理员不能在此停用、降级或删除自己的账号",
        "An admin cannot close, demote or delete the own account here",
    ),
    "last_admin": (
        409,
        "您是最后一位管理员，请先指定另一位",
        "You are the last admin; make another account one first",
    ),
    "not_requeueable": (
        409,
        "只有失败或生成中的任务可以重新排队",
        "Only a job that failed or is being made can be put back into the queue",
    ),
    "image_deleted": (410, "图像已删除", "That image was deleted"),
    "storage_full": (
        409,
        "存储空间已满，请先删除一些图像",
        "Your storage is full; delete some images first",
    ),
    "precondition_failed": (
        412,
        "文件不是 If-Match 所指的那一个",
        "The file is not the one that If-Match names",
    ),
    "payload_too_large": (413, "请求体过大", "The request is too large"),
    "archive_too_large": (
        413,
        "图像过多，请缩小范围（如 since、until）分次打包",
        "Too many images for one archive; narrow it, for example by since and until",
    ),
    "range_not_satisfiable": (416, "请求的范围无效", "That range is not in the file"),
    "too_many_attempts": (
        429,
        "登录失败次数过多，请稍后再试",
        "Too many failed log-ins; try again later",
    ),
    "too_many_archives": (
        429,
        "同时下载的压缩包过多，请等待其中一个完成",
        "Too many archives at a time; wait for one to end",
    ),
    "too_many_registrations": (
        429,
        "该地址注册次数过多，请稍后再试",
        "Too many registrations from this address; try again later",
    ),
    "too_many_codes": (
        429,
        "验证码请求或尝试次数过多，请稍后再试",
        "Too many codes were asked for or tried; try again later",
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
    "oidc_unavailable": (
        503,
        "外部登录服务暂时不可用，请稍后重试",
        "The log-in service is unavailable; try again soon",
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
    "queue_paused": (
        503,
        "生成已暂停，请稍后重试",
        "Images are not made just now; try again later",
    ),
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
