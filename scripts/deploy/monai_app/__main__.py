"""What a MAP starts."""

from app import FilmApplication

FilmApplication().run()
