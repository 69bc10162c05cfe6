"""The built-in demo set: drawn when it is first read, then read like any COCO dataset."""

from cervical_d2.datasets.formats import Document, Source, coco
from cervical_d2.datasets.problems import Problems
from cervical_d2.errors import UserError


def read(source: Source, problems: Problems) -> Document:
    """The records of a demo split; draws the whole set beside the annotations if it is not there yet.

    Raises:
        UserError: the folder does not exist and cannot be created.
    """
    from cervical_d2.demo.scenes import write_dataset

    if not source.annotations.is_file():
        try:
            write_dataset(source.annotations.parent)
        except OSError as error:
            raise UserError(
                f"{source.annotations.parent}: the demo set cannot be written ({error.strerror}); "
                "set XDG_CACHE_HOME to a writable folder"
            ) from error
    return coco.read(source, problems)


FORMAT = coco.FORMAT._replace(read=read, write=None)
