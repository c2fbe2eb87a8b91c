package main

import (
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

var (
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	configmaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	pods       = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	accounts   = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	events     = schema.GroupVersionResource{Version: "v1", Resource: "events"}
	leases     = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	crds       = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	widgets    = schema.GroupVersionResource{Group: "walk.rusd", Version: "v1", Resource: "widgets"}
)

// object makes one that is labelled ours.
func object(apiVersion, kind, name string, fields map[string]any) *unstructured.Unstructured {
	content := map[string]any{
		"apiVersion": apiVersion,
		"kind":       kind,
		"metadata":   map[string]any{"name": name, "labels": map[string]any{"walk": "ours"}},
	}
	for field, value := range fields {
		content[field] = value
	}
	return &unstructured.Unstructured{Object: content}
}

func configmap(name string, data map[string]any) *unstructured.Unstructured {
	return object("v1", "ConfigMap", name, map[string]any{"data": data})
}

func pod(name string) *unstructured.Unstructured {
	container := map[string]any{"name": "c", "image": "registry.invalid/nothing"}
	return object("v1", "Pod", name, map[string]any{"spec": map[string]any{"containers": []any{container}}})
}

func widget(name string, size int64) *unstructured.Unstructured {
	return object("walk.rusd/v1", "Widget", name, map[string]any{"spec": map[string]any{"size": size}})
}

func lease(name, holder string) *unstructured.Unstructured {
	return object("coordination.k8s.io/v1", "Lease", name, map[string]any{"spec": map[string]any{"holderIdentity": holder}})
}

// in is a resource of a namespace.
func (s *session) in(namespace string, resource schema.GroupVersionResource) dynamic.ResourceInterface {
	return s.client.Resource(resource).Namespace(namespace)
}

// namespace makes one, and waits for its service account, which pods need.
func (s *session) namespace(name string) error {
	_, err := s.client.Resource(namespaces).Create(s.ctx, object("v1", "Namespace", name, nil), metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	there := func() bool {
		_, err := s.in(name, accounts).Get(s.ctx, "default", metav1.GetOptions{})
		return err == nil
	}
	if !s.check(eventually(s.ctx, time.Minute, there), "namespace %s gets its service account", name) {
		return fmt.Errorf("namespace %s: no service account", name)
	}
	return nil
}

// define makes the widgets known, and waits until they are served.
func (s *session) define() error {
	schema := map[string]any{"type": "object", "properties": map[string]any{
		"spec": map[string]any{"type": "object", "properties": map[string]any{"size": map[string]any{"type": "integer", "minimum": int64(0)}}},
	}}
	definition := object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "widgets.walk.rusd", map[string]any{"spec": map[string]any{
		"group": "walk.rusd", "scope": "Namespaced",
		"names":    map[string]any{"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
		"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "schema": map[string]any{"openAPIV3Schema": schema}}},
	}})
	_, err := s.client.Resource(crds).Create(s.ctx, definition, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	served := func() bool {
		_, err := s.in("default", widgets).List(s.ctx, metav1.ListOptions{})
		return err == nil
	}
	if !s.check(eventually(s.ctx, time.Minute, served), "a custom resource is served") {
		return fmt.Errorf("widgets are not served")
	}
	return nil
}
