package awsfake

// things are what services other than SQS and SNS hold.
type things struct {
	buckets map[string]*fakeBucket
	tables  map[string]map[string]map[string]any // items by name and key
	streams map[string][]Record

	secrets    map[string]fakeSecret
	parameters map[string][]string // versions
}

func newThings() things {
	return things{
		buckets: map[string]*fakeBucket{}, tables: map[string]map[string]map[string]any{}, streams: map[string][]Record{},
		secrets: map[string]fakeSecret{}, parameters: map[string][]string{},
	}
}
