"""A decorated view: flask --app examples/flask_app.py run --port 8001"""

from flask import Flask, g

from fastauth import Verifier
from fastauth.verifier.flask import require_token

AUTH = "http://127.0.0.1:8000"
verifier = Verifier(keys=f"{AUTH}/.well-known/jwks.json", issuer=AUTH, audience=AUTH)
app = Flask(__name__)


@app.get("/")
@require_token(verifier, "user")
def hello():
    return f"hello {g.claims.sub}"
