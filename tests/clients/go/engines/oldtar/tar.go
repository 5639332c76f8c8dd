// Package tar is today's archive/tar with a manner of the one that engines were written for: that an entry has ended
// is told after its last bytes and not with them. Engines drop what comes with it, and push layers that lack it.
package tar

import (
	"archive/tar"
	"io"
)

type (
	Header = tar.Header
	Writer = tar.Writer
)

const (
	TypeReg           = tar.TypeReg
	TypeRegA          = '\x00'
	TypeLink          = tar.TypeLink
	TypeSymlink       = tar.TypeSymlink
	TypeChar          = tar.TypeChar
	TypeBlock         = tar.TypeBlock
	TypeDir           = tar.TypeDir
	TypeFifo          = tar.TypeFifo
	TypeXGlobalHeader = tar.TypeXGlobalHeader
)

var (
	NewWriter      = tar.NewWriter
	FileInfoHeader = tar.FileInfoHeader
)

// Reader reads an archive.
type Reader struct{ *tar.Reader }

// NewReader begins to read an archive.
func NewReader(from io.Reader) *Reader { return &Reader{tar.NewReader(from)} }

func (r *Reader) Read(into []byte) (int, error) {
	n, err := r.Reader.Read(into)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}
