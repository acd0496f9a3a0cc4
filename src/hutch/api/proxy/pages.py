"""The few pages that hutch draws itself: plain HTML, without a script and without a colour scheme
of anybody's, until the web interface takes over."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from starlette.responses import Response

from hutch.errors import HutchError

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem;"
    "color:#1c1c1c;background:#fff}h1{font-size:1.4rem}label{display:block;margin:.8rem 0 .2rem}"
    "input{font:inherit;width:100%;padding:.45rem;box-sizing:border-box;border:1px solid #767676;"
    "border-radius:4px}button{font:inherit;margin-top:1rem;padding:.5rem 1.2rem;border:0;"
    "border-radius:4px;background:#1d4ed8;color:#fff;cursor:pointer}.wrong{color:#b00020}"
    ".quiet{color:#595959}table{border-collapse:collapse;width:100%}td,th{text-align:left;"
    "padding:.3rem .6rem .3rem 0}"
)


@dataclass(frozen=True, slots=True)
class Link:
    """An app in the list."""

    owner: str
    instance: str
    name: str
    port: int
    url: str


def page(title: str, body: str, *, status: int = 200, forms_to: str = "'self'") -> Response:
    """A page; `forms_to` are the places to which its forms may lead, also by way of others."""
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)} - hutch</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'; "
        f"form-action {forms_to}"
    )
    return Response(
        html,
        status,
        {
            "content-security-policy": policy,
            "x-frame-options": "DENY",
            "x-content-type-options": "nosniff",
            # Not "no-referrer": browsers would then send a form from nowhere, "Origin: null".
            "referrer-policy": "same-origin",
            "cache-control": "no-store",
            # An app that opened this page cannot reach into it.
            "cross-origin-opener-policy": "same-origin",
        },
        media_type="text/html",
    )


def sign_in(
    token: str, onward: str, forms_to: str, *, name: str = "", error: HutchError | None = None
) -> Response:
    """The sign-in page, again with what was wrong."""
    wrong = f'<p class="wrong" role="alert">{escape(error.message)}</p>' if error else ""
    body = (
        f'{wrong}<form method="post" action="/login">'
        f"{_hidden('form', token)}{_hidden('next', onward)}"
        '<label for="name">Name</label>'
        f'<input id="name" name="name" value="{escape(name)}" autocomplete="username" required '
        'autofocus autocapitalize="none" spellcheck="false">'
        '<label for="password">Password</label>'
        '<input id="password" name="password" type="password" autocomplete="current-password" '
        "required><button>Sign in</button></form>"
    )
    return page("Sign in", body, status=error.status if error else 200, forms_to=forms_to)


def listing(user: str, links: Sequence[Link], token: str) -> Response:
    """Every app that somebody may open."""
    rows = "".join(
        f'<tr><td><a href="{escape(link.url)}">{escape(link.name)}</a></td>'
        f"<td>{escape(f'{link.owner}/{link.instance}')}</td><td>{link.port}</td></tr>"
        for link in links
    )
    table = (
        f"<table><tr><th>App</th><th>Instance</th><th>Port</th></tr>{rows}</table>"
        if links
        else '<p class="quiet">There is none yet. <code>hutch port add NAME 8888 --web-only</code> '
        "makes what listens at a port an app.</p>"
    )
    out = (
        f'<form method="post" action="/apps/-/logout">{_hidden("form", token)}'
        f"<button>Sign out</button></form>"
    )
    return page("Apps", f'<p class="quiet">You are {escape(user)}.</p>{table}{out}')


def ask_trust(owner: str, onward: str, token: str) -> Response:
    """The question before the first app of another person at hutch's own address."""
    body = (
        f"<p>This app is <strong>{escape(owner)}</strong>'s, and everything that it shows comes "
        "from there. At this address your browser does not keep apps apart: this one could use "
        "your own apps in your name, and look like hutch's sign-in page.</p>"
        f"<p>Go on only if you trust {escape(owner)} as you trust yourself.</p>"
        f'<form method="post" action="/apps/-/trust">{_hidden("form", token)}'
        f"{_hidden('owner', owner)}{_hidden('next', onward)}"
        f"<button>I trust {escape(owner)}: go on</button></form>"
        '<p class="quiet">You are asked once for each person. An administrator can give each app '
        "an address of its own; then nothing of this holds, and nobody is asked.</p>"
    )
    return page(f"An app of {owner}", body, status=403)


def refusal(error: HutchError, request_id: str) -> Response:
    """An error as a page."""
    body = (
        f"<p>{escape(error.message)}</p><p>{escape(error.hint)}</p>"
        f'<p class="quiet">Request {escape(request_id)}</p>'
    )
    return page(_TITLES.get(error.code, "This did not work"), body, status=error.status)


_TITLES = {
    "not_found": "There is no such app",
    "wrong_state": "The app's instance does not run",
    "app_unreachable": "The app does not answer",
    "app_timeout": "The app does not answer",
}


def _hidden(name: str, value: str) -> str:
    return f'<input type="hidden" name="{name}" value="{escape(value)}">'
