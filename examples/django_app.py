"""A Django project in one file: python examples/django_app.py runserver --noreload 8001"""

import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path

from fastauth.verifier.django import require_scope

AUTH = "http://127.0.0.1:8000"
settings.configure(
    DEBUG=True,
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["fastauth.verifier.django.BearerMiddleware"],
    FASTAUTH={"KEYS": f"{AUTH}/.well-known/jwks.json", "ISSUER": AUTH, "AUDIENCE": AUTH},
)


@require_scope("user")
def hello(request):
    return HttpResponse(f"hello {request.claims.sub}")


urlpatterns = [path("", hello)]
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
