package awsfake

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// fakeSecret is a secret of Secrets Manager; the last version is the current one.
type fakeSecret struct {
	versions []string
	binary   bool
}

// PutSecret writes a new version of a secret, "v1" and so on, and returns its ARN.
func (s *Server) PutSecret(name, value string) string { return s.putSecret(name, value, false) }

// PutBytes is PutSecret for one that is no text.
func (s *Server) PutBytes(name string, value []byte) { s.putSecret(name, string(value), true) }

func (s *Server) putSecret(name, value string, binary bool) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.secrets[name]
	s.secrets[name] = fakeSecret{append(it.versions, value), binary}
	return "arn:aws:secretsmanager:" + Region + ":" + Account + ":secret:" + name + "-AbCdEf"
}

// PutParameter writes a new version of a parameter, 1 and so on.
func (s *Server) PutParameter(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parameters[name] = append(s.parameters[name], value)
}

func (s *Server) secretsManager(operation string, in map[string]any) (any, *Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch operation {
	case "ListSecrets":
		names, more := pageOf(slices.Sorted(maps.Keys(s.secrets)), in)
		list := []any{}
		for _, name := range names {
			list = append(list, map[string]string{"Name": name})
		}
		return map[string]any{"SecretList": list, "NextToken": more}, nil
	case "GetSecretValue":
		name := str(in, "SecretId")
		if i := strings.LastIndexByte(name, ':'); i >= 0 {
			name = strings.TrimSuffix(name[i+1:], "-AbCdEf")
		}
		it, ok := s.secrets[name]
		if !ok {
			return nil, bad("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
		}
		n := len(it.versions)
		if v := str(in, "VersionId"); v != "" {
			n, _ = strconv.Atoi(strings.TrimPrefix(v, "v"))
		}
		if str(in, "VersionStage") == "AWSPREVIOUS" {
			n--
		}
		if n < 1 || n > len(it.versions) {
			return nil, bad("ResourceNotFoundException", "Secrets Manager can't find the specified secret value.")
		}
		out := map[string]any{"Name": name, "VersionId": fmt.Sprintf("v%d", n)}
		if out["SecretString"] = it.versions[n-1]; it.binary {
			delete(out, "SecretString")
			out["SecretBinary"] = base64.StdEncoding.EncodeToString([]byte(it.versions[n-1]))
		}
		return out, nil
	}
	return nil, bad("UnknownOperationException", "%s", operation)
}

// pageOf cuts a page out of names, after the one that the token says.
func pageOf(names []string, in map[string]any) (page []string, more string) {
	from, _ := strconv.Atoi(str(in, "NextToken"))
	names = names[min(from, len(names)):]
	if most := num(in, "MaxResults", 10); len(names) > most {
		return names[:most], strconv.Itoa(from + most)
	}
	return names, ""
}

func (s *Server) systemsManager(operation string, in map[string]any) (any, *Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch operation {
	case "DescribeParameters":
		var names []string
		for _, name := range slices.Sorted(maps.Keys(s.parameters)) {
			if filters, _ := in["ParameterFilters"].([]any); len(filters) == 0 || strings.HasPrefix(name, filters[0].(map[string]any)["Values"].([]any)[0].(string)) {
				names = append(names, name)
			}
		}
		names, more := pageOf(names, in)
		list := []any{}
		for _, name := range names {
			list = append(list, map[string]string{"Name": name})
		}
		return map[string]any{"Parameters": list, "NextToken": more}, nil
	case "GetParameters":
		names, _ := in["Names"].([]any)
		if len(names) > 10 {
			return nil, bad("ValidationException", "more than 10 names")
		}
		list := []any{}
		for _, name := range names {
			if versions, ok := s.parameters[name.(string)]; ok {
				list = append(list, map[string]string{"Name": name.(string), "Value": versions[len(versions)-1]})
			}
		}
		return map[string]any{"Parameters": list}, nil
	case "GetParameter":
		name, version, _ := strings.Cut(str(in, "Name"), ":")
		versions := s.parameters[name]
		if len(versions) == 0 {
			return nil, &Failure{Status: 400, Code: "ParameterNotFound"}
		}
		n := len(versions)
		if version != "" {
			n, _ = strconv.Atoi(version)
		}
		if n < 1 || n > len(versions) {
			return nil, bad("ParameterVersionNotFound", "version %s not found", version)
		}
		value := versions[n-1]
		if in["WithDecryption"] != true {
			value = "(encrypted)"
		}
		return map[string]any{"Parameter": map[string]any{"Name": name, "Value": value, "Version": n}}, nil
	}
	return nil, bad("UnknownOperationException", "%s", operation)
}
