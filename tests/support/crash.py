"""The end of a process at a chosen instant: nothing may catch it, as nothing catches a kill -9."""


class Crash(BaseException):
    pass
