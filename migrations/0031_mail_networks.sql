-- From where a mail was asked for, as a hash; '' if nobody asked, or the release before took the request.
ALTER TABLE mails ADD COLUMN network_hash VARCHAR(32) NOT NULL DEFAULT '';
