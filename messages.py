"""Every sentence a client can read beside those of errors.py, in Chinese and English."""

# What can be wrong with one field. The names are pydantic's error types, and our own.
FIELDS = {
    "missing": ("缺少此字段", "is required"),
    "extra_forbidden": ("不支持此字段", "is not a field of this call"),
    "duplicate": ("重复出现", "is given twice"),
    "not_finite": ("包含 NaN 或无穷大", "contains NaN or an infinite number"),
    "string_type": ("必须是字符串", "must be a string"),
    "string_unicode": ("包含无效字符", "contains characters that are not valid Unicode"),
    "string_too_short": ("至少 {min_length} 个字符", "must have at least {min_length} characters"),
    "string_too_long": ("最多 {max_length} 个字符", "must have at most {max_length} characters"),
    "unprintable": ("包含不可见或控制字符", "contains invisible or control characters"),
    "not_utf8": ("不是 UTF-8 编码", "is not UTF-8"),
    "form_type": (
        "不是有效的表单，multipart/form-data 须带 boundary",
        "is not a valid form; multipart/form-data needs its boundary",
    ),
    "mixed_scripts": (
        "不能混用形似的拉丁、西里尔或希腊字母",
        "must not mix Latin, Cyrillic or Greek letters, which look alike",
    ),
    "wrong_password": ("错误", "is wrong"),
    "end_of_nothing": ("须与某项限额一同设定", "needs a limit that ends then"),
    "wrong_code": ("错误或已使用过", "is wrong, or was used before"),
    "past_time": ("必须是将来的时间", "must be a time in the future"),
    "common_password": ("过于常见", "is too common"),
    "email": ("格式不正确", "is not an email address"),
    "number_type": ("必须是整数", "must be a whole number"),
    "greater_than_equal": ("不能小于 {ge}", "must be at least {ge}"),
    "less_than_equal": ("不能大于 {le}", "must be at most {le}"),
    "literal_error": ("必须是 {expected} 之一", "must be one of {expected}"),
    "dict_type": ("必须是 JSON 对象", "must be a JSON object"),
    "model_type": ("必须是 JSON 对象", "must be a JSON object"),
    "real_type": ("必须是数字", "must be a number"),
    "bool_type": ("必须是 true 或 false", "must be true or false"),
    "list_type": ("必须是数组", "must be an array"),
    "too_short": ("至少包含 {min_length} 项", "must have at least {min_length} items"),
    "too_long": ("最多包含 {max_length} 项", "must have at most {max_length} items"),
    "too_many_tags": (
        "会使一张图像的标签超过 {most} 个",
        "would give an image more than {most} tags",
    ),
    "time_type": ("必须是 ISO 8601 时间", "must be an ISO 8601 time"),
    "cursor_type": ("不是有效的游标", "is not a valid cursor"),
    "ids_and_filters": ("中不能同时有 ids 和筛选条件", "cannot have both ids and filters"),
    "id_list": ("必须是以逗号分隔的 1 至 50 个编号", "must be 1 to 50 ids separated by commas"),
    "not_offered": ("该模型不支持此参数", "is not offered by this model"),
    "out_of_range": ("必须在 {low:g} 到 {high:g} 之间", "must be from {low:g} to {high:g}"),
    "not_multiple": ("必须是 {step} 的倍数", "must be a multiple of {step}"),
    "too_many_marks": (
        "连续的组合符号不能超过 {most} 个",
        "must not have more than {most} combining marks in a row",
    ),
    "size_twice": (
        "不能与宽度和高度同时使用",
        "cannot be used together with width and height",
    ),
    "pixels": (
        "与高度相乘须在 {low} 到 {high} 像素之间",
        "and height must make from {low} to {high} pixels",
    ),
    "ratio": (
        "与高度之比不能超过 {most:g}",
        "and height must not differ by more than {most:g} to 1",
    ),
    "size_not_offered": ("与高度须为以下尺寸之一：{sizes}", "and height must be one of {sizes}"),
    "blocked": ("包含禁用词“{word}”", 'contains the blocked word "{word}"'),
    "marker": (
        "包含生成引擎会当作指令的内容“{marker}”",
        'contains "{marker}", which the engine would take as a command',
    ),
    "idempotency_key": (
        "须为 1 至 100 个可见 ASCII 字符",
        "must be 1 to 100 visible ASCII characters",
    ),
    "unavailable": ("不可用", "is unavailable"),
    "no_worker": ("没有运行中的工作进程", "has no running worker"),
    "paused": ("已暂停", "is paused"),
    "model_paused": ("已暂停处理该模型的任务", "is paused for this model"),
    "nothing_to_change": ("至少包含一个要修改的字段", "must have at least one field to change"),
    "no_model": ("均不可用", "are all unavailable"),
    "taken": ("已存在", "is taken"),
    "too_large": ("内容过多", "contains too much"),
    "positive_integer": ("必须是正整数", "must be a positive whole number"),
    "avatar_not_a_file": (
        "必须以 multipart/form-data 文件上传",
        "must be a file sent as multipart/form-data",
    ),
    "avatar_too_large": ("不能超过 5 MB", "must be 5 MB or smaller"),
    "picture_format": (
        "必须是 png、jpg、jpeg、gif 或 webp 图片",
        "must be a png, jpg, jpeg, gif or webp picture",
    ),
    "not_strippable": (
        "仅适用于 png、jpg 或 webp 图片",
        "works on png, jpg and webp pictures only",
    ),
    "picture_pixels": ("的像素过多", "has too many pixels"),
    "upload_format": ("必须是 png、jpg 或 webp 图片", "must be a png, jpg or webp picture"),
    "picture_animated": ("不能是动图", "must not be an animation"),
    "not_a_file": (
        "必须以 multipart/form-data 文件上传",
        "must be a file sent as multipart/form-data",
    ),
    "upload_or_image": ("须有 upload 或 image 之一", "must have either upload or image"),
    "too_many_images": ("最多 {most} 张图片", "takes at most {most} pictures"),
    "mask_without_image": ("需要至少一张输入图片", "needs a picture in images"),
    "strength_without_image": ("需要至少一张输入图片", "needs a picture in images"),
    "mask_size": (
        "的尺寸须与第一张图片相同：{width}×{height}",
        "must have the size of the first picture, {width} x {height}",
    ),
    "mask_empty": (
        "中没有透明像素，透明处才会改变",
        "has no transparent pixels, which are what changes",
    ),
    "input_format": ("须为以下格式之一：{formats}", "must be one of {formats}"),
    "input_bytes": ("不能超过 {most} 字节", "must have at most {most} bytes"),
    "input_unknown": ("不存在", "is not there"),
    "input_deleted": ("已删除", "was deleted"),
    "input_unfinished": ("没有可用的图像", "has no finished image"),
    "picture_broken": ("已损坏或不完整", "is damaged or cut short"),
}
INVALID = ("格式不正确", "is not valid")

# What each field is called in front of a sentence about it.
LABELS = {
    "body": ("请求体", "Body"),
    "query": ("查询参数", "Query"),
    "database": ("数据库", "Database"),
    "storage": ("存储", "Storage"),
    "queue": ("队列", "Queue"),
    "models": ("模型", "Models"),
    "username": ("用户名", "User name"),
    "email": ("邮箱", "Email"),
    "password": ("密码", "Password"),
    "oldPassword": ("原密码", "Old password"),
    "newPassword": ("新密码", "New password"),
    "inviteCode": ("邀请码", "Invite code"),
    "code": ("验证码", "Code"),
    "avatar": ("头像", "Avatar"),
    "prompt": ("提示词", "Prompt"),
    "file": ("图片", "File"),
    "images": ("输入图片", "images"),
    "mask": ("蒙版", "mask"),
}

SUCCESS = {
    "uploaded": ("上传成功", "Uploaded"),
    "registered": ("注册成功", "Registered"),
    "logged_in": ("登录成功", "Logged in"),
    "profile_changed": ("资料已更新", "Changed"),
    "account_deleted": ("账号已删除", "The account is deleted"),
    "second_factor_on": ("两步验证已开启", "The second factor is on"),
    "second_factor_off": ("两步验证已关闭", "The second factor is off"),
    "email_requested": (
        "验证码已发送到新邮箱，验证后生效",
        "A code is on its way to the new email, which counts once it is confirmed",
    ),
    "code_requested": (
        "如果该邮箱有对应的账号，验证码邮件将很快送达",
        "If there is an account with this email, a code is on its way to it",
    ),
    "password_reset": ("密码已重置，请重新登录", "The password is changed; log in with it"),
    "email_confirmed": ("邮箱验证成功", "The email is confirmed"),
    "submitted": ("任务已提交", "Submitted"),
    "requeued": ("任务已重新排队", "Back in the queue"),
    "canceled": ("任务已取消", "Canceled"),
    "deleted": ("删除成功", "Deleted"),
    "password_changed": ("密码已修改", "The password is changed"),
    "logged_out": ("已退出登录", "Logged out"),
    "session_ended": ("该会话已结束", "The session has ended"),
    "key_made": ("API 密钥已创建，仅显示这一次", "The key is made; it is shown only this once"),
    "key_revoked": ("API 密钥已撤销", "The key is revoked"),
    "redeemed": ("邀请码已兑换", "The invite code is redeemed"),
    "shared": ("分享成功", "Shared"),
    "restored": ("恢复成功", "Restored"),
    "changed": ("修改成功", "Changed"),
    "generated": ("图像生成成功", "The image is ready"),
}

# Subject and text of each mail.
MAILS = {
    "reset": (
        (
            "重置密码",
            """\
有人请求重置账号“{name}”的密码。验证码（30 分钟内有效，仅可使用一次）：

{code}

如果不是您本人的操作，请忽略此邮件，密码不会改变。请勿将验证码告诉任何人。
""",
        ),
        (
            "Reset your password",
            """\
Somebody asked for a new password of the account "{name}". The code, good once
and for 30 minutes:

{code}

If it was not you, ignore this mail: your password stays as it is. Never tell
the code to anybody.
""",
        ),
    ),
    "confirm": (
        (
            "验证邮箱",
            """\
请使用以下验证码确认此邮箱（24 小时内有效，仅可使用一次）：

{code}

如果您没有用此邮箱注册账号或更换邮箱，请忽略此邮件。
""",
        ),
        (
            "Confirm your email",
            """\
Confirm this address with the following code, good once and for 24 hours:

{code}

If you did not enter this address for an account, ignore this mail.
""",
        ),
    ),
    "taken": (
        (
            "该邮箱已有账号",
            """\
有人想把此邮箱用于另一个账号，但它已属于您的账号，因此没有任何改变。

如果是您本人的操作，请使用另一个邮箱。
""",
        ),
        (
            "You have an account with this email",
            """\
Somebody wanted to use this address for another account. It belongs to yours
already, so nothing has changed.

If it was you, use another address.
""",
        ),
    ),
    "changed": (
        (
            "邮箱已更换",
            """\
账号“{name}”的邮箱已更换，此邮箱不再属于该账号。

如果不是您本人的操作，请立即联系管理员。
""",
        ),
        (
            "Your email was changed",
            """\
The account "{name}" has another email now; this address no longer belongs to it.

If it was not you, contact the operator of the service at once.
""",
        ),
    ),
    "test": (
        ("测试邮件", "邮件设置可用。\n"),
        ("Test mail", "Mail works.\n"),
    ),
}


# Why a generation failed, by its error code; told to its owner.
JOB_ERRORS = {
    "engine_error": ("图像生成失败", "The image could not be made"),
    "engine_unavailable": ("生成引擎暂时不可用", "The engine was unavailable"),
    "bad_picture": ("生成引擎返回的不是有效图片", "The engine's answer was not a picture"),
    "timeout": ("生成超时", "It took too long"),
    "input_gone": ("输入图片已不存在", "A picture that it was to be made from is gone"),
    "worker_lost": ("任务多次中断", "It was interrupted too many times"),
    "storage_unavailable": ("存储暂时不可用", "The storage was unavailable"),
    "image_lost": ("图像文件已丢失", "The image's file was lost"),
    "engine_busy": ("生成引擎繁忙", "The engine was busy"),
    "engine_refused": (
        "生成引擎不接受该请求的参数",
        "The engine does not take the request's parameters",
    ),
    "engine_account": (
        "生成引擎拒绝了本服务的账号，请联系管理员",
        "The engine refuses this service's account; tell the operator",
    ),
    "engine_task": (
        "生成引擎只返回了任务编号，没有图片",
        "The engine answered with the id of a task instead of a picture",
    ),
    "content_refused": ("内容不符合生成引擎的使用政策", "The engine's content policy refuses this"),
    "outcome_unknown": (
        "与生成引擎的连接中断，结果未知；为避免重复计费未自动重试",
        "The engine's answer was lost; not repeated, because it could be charged twice",
    ),
}


def success_text(key: str, language: str) -> str:
    return SUCCESS[key][0 if language == "zh" else 1]


def mail_text(key: str, language: str) -> tuple[str, str]:
    """Return the subject of a mail, and its text with {names} for its values."""
    return MAILS[key][0 if language == "zh" else 1]


def job_text(code: str, language: str) -> str:
    return JOB_ERRORS.get(code, JOB_ERRORS["engine_error"])[0 if language == "zh" else 1]


def problem_text(problem: str, language: str) -> str:
    """Return why a model cannot be made just now."""
    if problem in JOB_ERRORS:
        return job_text(problem, language)
    return field_text("queue", problem, {}, language)


def field_text(name: str, kind: str, values: dict, language: str) -> str:
    """Return the sentence about one wrong field, such as `用户名至少 3 个字符`."""
    which = 0 if language == "zh" else 1
    label = LABELS[name][which] if name in LABELS else name
    space = " " if label.isascii() else ""
    return label + space + FIELDS.get(kind, INVALID)[which].format(**values)
