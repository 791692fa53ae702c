"""The servers that `cefmp4 up` brings along when none are configured."""
