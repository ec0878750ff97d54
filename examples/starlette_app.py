"""Starlette's own authentication: granian --interface asgi --port 8001 examples.starlette_app:app"""

from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fastauth import Verifier
from fastauth.verifier.starlette import BearerBackend, on_error

AUTH = "http://127.0.0.1:8000"


@requires("user", status_code=401)
async def hello(request):
    return PlainTextResponse(f"hello {request.user.identity}")


backend = BearerBackend(Verifier(keys=f"{AUTH}/.well-known/jwks.json", issuer=AUTH, audience=AUTH))
app = Starlette(
    routes=[Route("/", hello)],
    middleware=[Middleware(AuthenticationMiddleware, backend=backend, on_error=on_error)],
)
