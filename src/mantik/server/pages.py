"""The platform's own pages: the sign-in page and the badge that MLflow's page gets."""

from __future__ import annotations

import base64
import hashlib
import html
from string import Template
from typing import Final
from urllib.parse import quote

SIGN_IN_PATH: Final = "/mantik/sign-in"
SIGN_OUT_PATH: Final = "/mantik/sign-out"

_STYLE: Final = """
:root{color-scheme:light dark;--page:#f3f5f8;--card:#fff;--text:#18212f;--quiet:#5b6778;--line:#c9d1dc;--strong:#0e6e6e;
--on-strong:#fff;--error:#9f1f1f;--error-page:#fdecec}
@media (prefers-color-scheme:dark){:root{--page:#10151d;--card:#1a212c;--text:#e8edf4;--quiet:#9aa7b8;--line:#3b4759;
--strong:#4fc3c0;--on-strong:#06201f;--error:#ffb4b4;--error-page:#3a1a1d}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--page);color:var(--text);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{width:100%;max-width:24rem;background:var(--card);border:1px solid var(--line);border-radius:14px;
padding:2.25rem 2rem;
box-shadow:0 10px 30px rgb(10 20 40/.08)}
.mark{display:flex;align-items:center;gap:.6rem;font-weight:650;letter-spacing:.01em;color:var(--strong)}
.mark svg{width:1.75rem;height:1.75rem;flex:none}
h1{margin:1.4rem 0 .2rem;font-size:1.5rem;line-height:1.25;letter-spacing:-.01em}
p{margin:0;color:var(--quiet)}
form{margin-top:1.5rem;display:grid;gap:1.1rem}
label{display:grid;gap:.35rem;font-size:.9rem;font-weight:600}
input{width:100%;padding:.65rem .75rem;font:inherit;font-weight:400;color:inherit;background:transparent;
border:1px solid var(--line);border-radius:8px}
button{padding:.7rem 1rem;font:inherit;font-weight:650;color:var(--on-strong);background:var(--strong);border:0;
border-radius:8px;cursor:pointer}
button:hover{filter:brightness(1.08)}
input:focus-visible,button:focus-visible{outline:3px solid var(--strong);outline-offset:2px}
.error{margin-top:1.25rem;padding:.65rem .8rem;border-radius:8px;border-left:4px solid var(--error);color:var(--error);
background:var(--error-page)}
"""

# The form has no action: it posts to the page's own address. So the query with `next` stays, and so does a fragment,
# in which MLflow's page keeps what the reader was looking at and which no server ever sees.
_SIGN_IN: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in · mantik</title>
<style>$style</style>
</head>
<body>
<main>
<div class="mark">
<svg viewBox="0 0 32 32" fill="none" stroke="currentColor" stroke-width="2.6" stroke-linecap="round"
stroke-linejoin="round" aria-hidden="true"><path d="M3 25V8l8.5 10L20 8v17"/><path d="M20 17c4 0 4.500-7 9-9"/></svg>
<span>mantik</span>
</div>
<h1>Sign in</h1>
<p>to see experiments, runs and models.</p>
$error
<form method="post">
<label>User name
<input name="username" value="$username" autocomplete="username" autocapitalize="none" spellcheck="false"
maxlength="128" required $focus_name></label>
<label>Password
<input name="password" type="password" autocomplete="current-password" maxlength="256" required $focus_password></label>
<button type="submit">Sign in</button>
</form>
</main>
</body>
</html>
""")

# At the middle of the upper edge MLflow shows nothing. Its dialogs take all clicks from the body: hence pointer-events.
_BADGE: Final = Template("""<form method="post" action="$sign_out" aria-label="Signed in" style="position:fixed;top:0;\
left:50%;transform:translateX(-50%);z-index:900;pointer-events:auto;margin:0;padding:0 10px 1px;display:flex;gap:6px;\
align-items:center;max-width:260px;border-radius:0 0 8px 8px;background:#18212f;color:#fff;\
font:11px/18px system-ui,sans-serif">\
<span style="overflow:hidden;text-overflow:ellipsis;white-space:nowrap" title="$username">$username</span>\
<span aria-hidden="true">·</span>\
<button type="submit" style="all:unset;outline:revert;cursor:pointer;white-space:nowrap;text-decoration:underline">\
Sign out</button>\
</form>""")

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # Not no-referrer: with that, browsers send "Origin: null" with the form, and the form would be refused.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def sign_in_page(username: str = "", error: str = "") -> str:
    """Return the sign-in page, with what was typed before and what was wrong with it."""
    return _SIGN_IN.substitute(
        style=_STYLE,
        error=f'<p class="error" role="alert">{html.escape(error)}</p>' if error else "",
        username=html.escape(username),
        focus_name="" if username else "autofocus",
        focus_password="autofocus" if username else "",
    )


def with_badge(page: bytes, username: str) -> bytes:
    """Return MLflow's page with the user's name and a button to sign out."""
    badge = _BADGE.substitute(sign_out=SIGN_OUT_PATH, username=html.escape(username)).encode()
    head, end_of_body, tail = page.rpartition(b"</body>")
    return head + badge + end_of_body + tail if end_of_body else page


def sign_in_address(wanted: str) -> str:
    """Return the address of the sign-in page that leads to the path and query ``wanted``."""
    return SIGN_IN_PATH if wanted == "/" else f"{SIGN_IN_PATH}?next={quote(wanted, safe='/')}"


def safe_next(wanted: str) -> str:
    r"""Return ``wanted`` if it is a path of this site, else the front page.

    Browsers read ``//host`` and ``/\host`` as another site, and drop tabs and line ends before they look.
    """
    leads_away = not wanted.startswith("/") or wanted.startswith("//") or "\\" in wanted
    return "/" if leads_away or not wanted.isprintable() else wanted
