"""Claims as a dependency: granian --interface asgi --port 8001 examples.fastapi_app:app"""

from typing import Annotated

from fastapi import FastAPI, Security

from fastauth import Claims, Verifier
from fastauth.verifier.fastapi import BearerAuth

AUTH = "http://127.0.0.1:8000"
auth = BearerAuth(Verifier(keys=f"{AUTH}/.well-known/jwks.json", issuer=AUTH, audience=AUTH))
app = FastAPI()


@app.get("/")
async def hello(claims: Annotated[Claims, Security(auth, scopes=["user"])]) -> str:
    return f"hello {claims.sub}"
