"""openai for Python, 0.x: it knew no speech."""

import sys

import openai
from telling import tell

base, key = sys.argv[1:3]
openai.api_base, openai.api_key = f"{base}/openai/v1", key


def refusal():
    try:
        openai.Model.retrieve("nothing")
    except openai.error.InvalidRequestError as error:
        return error.http_status == 404 and error.code == "not_found" and error.user_message


tell("Models", lambda: openai.Model.list()["data"])
tell("Errors", refusal)
