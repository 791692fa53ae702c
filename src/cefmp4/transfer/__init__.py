"""Files to the store and back, by their names: what people and programs ask for themselves."""

from cefmp4.transfer.download import download_files
from cefmp4.transfer.result import Status, Transferred
from cefmp4.transfer.upload import upload_files

__all__ = ["Status", "Transferred", "download_files", "upload_files"]
