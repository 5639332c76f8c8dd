package httputils
