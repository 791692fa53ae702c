"""What it means that Temporal does not let us in: which setting is wrong, where one is. Its client
tells that in words alone."""

from cefmp4.errors import AccessDeniedError, CefError, ServerUnreachableError

_CANNOT_CONNECT = "Failed client connect"
_WRONG_TLS = {
    "NotValidForName": (
        "its certificate has another name",
        "TEMPORAL_ADDRESS or TEMPORAL_TLS_SERVER_NAME",
    ),
    "InvalidCertificate": (
        "its certificate is not to be trusted",
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH",
    ),
    "PrivateKeyParseError": ("our key cannot be read", "TEMPORAL_TLS_CLIENT_KEY_PATH"),
    "CertificateParseError": ("a certificate cannot be read", "the TEMPORAL_TLS_*_CERT_PATH"),
    "InconsistentKeys": (
        "our key is not of our certificate",
        "TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH",
    ),
    "CertificateRequired": ("it wants a certificate of ours", "TEMPORAL_TLS_CLIENT_CERT_PATH"),
    "fatal alert": ("it does not take our certificate", "TEMPORAL_TLS_CLIENT_CERT_PATH"),
    "InvalidContentType": ("it does not speak TLS", "TEMPORAL_TLS and TEMPORAL_ADDRESS"),
}
_CUT_SHORT = '"transport error"'  # such as by one that speaks TLS, where we do not
_WRONG_KEY = ("code: Unauthenticated", "code: PermissionDenied")


class NoNamespaceError(AccessDeniedError):
    """Temporal does not have the namespace of the settings."""


def is_of_connecting(error: RuntimeError) -> bool:
    return str(error).startswith(_CANNOT_CONNECT)


def meant_by(error: RuntimeError, address: str) -> CefError:
    said = str(error)
    for words, (meaning, settings) in _WRONG_TLS.items():
        if words in said:
            return refusal(f"no TLS with Temporal at {address}: {meaning}", settings)
    if any(words in said for words in _WRONG_KEY):
        return unauthorized(address)
    is_cut_short = _CUT_SHORT in said
    return silence(address, "TEMPORAL_ADDRESS and TEMPORAL_TLS" if is_cut_short else "")


def silence(address: str, settings: str = "") -> ServerUnreachableError:
    return ServerUnreachableError(
        f"Temporal does not answer at {address}", hint=f"check {settings or 'TEMPORAL_ADDRESS'}"
    )


def unauthorized(address: str) -> AccessDeniedError:
    return refusal(
        f"Temporal at {address} takes no request of ours",
        "TEMPORAL_API_KEY or TEMPORAL_TLS_CLIENT_CERT_PATH, and what it may do",
    )


def no_namespace(namespace: str) -> NoNamespaceError:
    message = f"Temporal has no namespace {namespace!a}"
    return NoNamespaceError(message, hint="check TEMPORAL_NAMESPACE", is_stranger=True)


def refusal(message: str, settings: str) -> AccessDeniedError:
    return AccessDeniedError(message, hint=f"check {settings}", is_stranger=True)
