"""Guard any ASGI application: granian --interface asgi --port 8001 examples.asgi_app:app"""

from fastauth import Verifier
from fastauth.verifier.asgi import BearerMiddleware

AUTH = "http://127.0.0.1:8000"


async def hello(scope, receive, send):
    body = f"hello {scope['fastauth.claims'].sub}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


verifier = Verifier(keys=f"{AUTH}/.well-known/jwks.json", issuer=AUTH, audience=AUTH)
app = BearerMiddleware(hello, verifier, scopes=["user"])
