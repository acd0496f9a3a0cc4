"""Web applications in instances, behind hutch's own sign-in.

front.py       the way in: what is asked for, whether one may, and what becomes of it
own_pages.py   hutch's own pages: sign-in, the list, whom one trusts, the way to an app's host
pages.py       how they look
sessions.py    cookies and what they are worth
asked.py       one request
headers.py     what an app sees of a request, and a browser of an answer
relay.py       one request and its answer, passed on as they come
upstream.py    HTTP to what listens in an instance
inside.py      both of these through an engine, where a node does not listen for an app
tunnel.py      WebSockets, as bytes
"""

from hutch.api.proxy.front import Apps, Front

__all__ = ["Apps", "Front"]
