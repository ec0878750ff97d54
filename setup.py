"""Builds the Cython core; everything else about the package is in pyproject.toml."""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

# FASTAUTH_CFLAGS: extra flags for a debugging build, for example "-O1 -g -fsanitize=address".
flags = ["-O3", "-fno-strict-aliasing", *os.environ.get("FASTAUTH_CFLAGS", "").split()]
link = [flag for flag in flags if flag.startswith("-fsanitize")]

setup(
    ext_modules=cythonize(
        [
            Extension(
                "fastauth._core",
                ["src/fastauth/_core.pyx"],
                extra_compile_args=flags,
                extra_link_args=link,
            )
        ],
        build_dir="build",
    )
)
