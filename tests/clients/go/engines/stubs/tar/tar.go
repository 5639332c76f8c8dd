// Package tar is today's archive/tar with a manner of the one that engines were written for: that an entry has ended
// is told after its last bytes and not with them. An engine that hashes while it reads would lose those.
package tar

import (
	"archive/tar"
	"io"
	"os"
)

const (
	TypeReg           = tar.TypeReg
	TypeRegA          = tar.TypeRegA
	TypeLink          = tar.TypeLink
	TypeSymlink       = tar.TypeSymlink
	TypeChar          = tar.TypeChar
	TypeBlock         = tar.TypeBlock
	TypeDir           = tar.TypeDir
	TypeFifo          = tar.TypeFifo
	TypeXGlobalHeader = tar.TypeXGlobalHeader
)

type (
	Header = tar.Header
	Writer = tar.Writer
	Reader struct{ *tar.Reader }
)

func NewReader(from io.Reader) *Reader { return &Reader{tar.NewReader(from)} }

func NewWriter(to io.Writer) *Writer { return tar.NewWriter(to) }

func FileInfoHeader(info os.FileInfo, link string) (*Header, error) {
	return tar.FileInfoHeader(info, link)
}

func (reader *Reader) Read(into []byte) (int, error) {
	read, err := reader.Reader.Read(into)
	if read > 0 && err == io.EOF {
		err = nil
	}
	return read, err
}
