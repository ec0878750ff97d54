"""Django REST framework in one file: python examples/drf_app.py runserver --noreload 8001"""

import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.urls import path

AUTH = "http://127.0.0.1:8000"
settings.configure(
    DEBUG=True,
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["rest_framework"],
    FASTAUTH={"KEYS": f"{AUTH}/.well-known/jwks.json", "ISSUER": AUTH, "AUDIENCE": AUTH},
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["fastauth.verifier.rest_framework.BearerAuthentication"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "UNAUTHENTICATED_USER": None,  # else it wants django.contrib.auth
    },
)

from rest_framework.response import Response  # noqa: E402 - wants the settings
from rest_framework.views import APIView  # noqa: E402

from fastauth.verifier.rest_framework import HasScope  # noqa: E402


class Hello(APIView):
    permission_classes = [HasScope.of("user")]  # noqa: RUF012 - as REST framework's documentation writes it

    def get(self, request):
        return Response(f"hello {request.auth.sub}")


urlpatterns = [path("", Hello.as_view())]
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
