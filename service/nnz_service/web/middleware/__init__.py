"""What happens to a request before a route sees it; pure ASGI, outermost first.

``context`` gives it an id, a clock and metrics and answers what went wrong,
``auth`` asks for the key, ``gate`` bounds its size, its time and its number.
Nothing here derives from Starlette's ``BaseHTTPMiddleware``, which hides the
client's departure from the routes.
"""
