// For admission's tests: a store (a map of documents, and the writes that admission decides), rows
// of tables of cases, and objects to begin with.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "egw/core/admission.hpp"
#include "egw/model/meta.hpp"

namespace egw::core {

// Applies a JSON merge patch (RFC 7386) given as text.
inline nlohmann::json patched(nlohmann::json doc, const std::string& patch) {
  if (!patch.empty()) doc.merge_patch(nlohmann::json::parse(patch));
  return doc;
}

// A row of a table: a patch of a document, and what admission has to say of it.
struct Case {
  const char* what;
  const char* patch;
  std::vector<const char*> denial;  // each must be in the one denial; empty: admitted
};

inline void check(const AdmitAnswer& answer, const Case& c) {
  SCOPED_TRACE(c.what);
  EXPECT_EQ(answer.admitted, c.denial.empty()) << testing::PrintToString(answer.denials);
  if (c.denial.empty()) {
    EXPECT_THAT(answer.denials, testing::IsEmpty());
    return;
  }
  ASSERT_EQ(answer.denials.size(), 1U) << testing::PrintToString(answer.denials);
  for (const char* part : c.denial) EXPECT_THAT(answer.denials[0], testing::HasSubstr(part));
}

class Store {
 public:
  model::Settings settings;
  nlohmann::json stored;  // what the last admitted write would store

  Store() {
    settings.enable_ipv6 = true;
    settings.tunnel_v4 = model::Prefix::parse("172.31.0.0/16").value();
    settings.tunnel_v6 = model::Prefix::parse("fd11::/112").value();
  }

  // Puts a document there without asking.
  void put(const nlohmann::json& doc) { objects_[kind_of(doc)][key_of(doc)] = doc; }
  nlohmann::json get(const char* kind, const std::string& ns, const std::string& name) const {
    return objects_.at(model::find_kind(kind)->id).at({ns, name});
  }

  AdmitAnswer create(const nlohmann::json& doc) { return ask(AdmitOp::kCreate, nullptr, doc); }
  // The old object is the stored one.
  AdmitAnswer update(const nlohmann::json& doc) {
    return ask(AdmitOp::kUpdate, objects_.at(kind_of(doc)).at(key_of(doc)), doc);
  }
  AdmitAnswer remove(const nlohmann::json& doc) { return ask(AdmitOp::kDelete, doc, nullptr); }

  // Stores what admission made of it, as a store does.
  AdmitAnswer create_and_put(const nlohmann::json& doc) {
    AdmitAnswer answer = create(doc);
    if (answer.admitted) put(stored);
    return answer;
  }

  ObjectReader reader() const {
    ObjectReader r;
    r.get = [this](model::Kind kind,
                   const model::Key& key) -> std::shared_ptr<const nlohmann::json> {
      const auto of_kind = objects_.find(kind);
      if (of_kind == objects_.end()) return nullptr;
      const auto it = of_kind->second.find(key);
      if (it == of_kind->second.end()) return nullptr;
      return std::make_shared<nlohmann::json>(it->second);
    };
    r.each = [this](model::Kind kind, const ObjectReader::Visit& visit) {
      const auto of_kind = objects_.find(kind);
      if (of_kind == objects_.end()) return;
      for (const auto& [key, doc] : of_kind->second) visit(doc);
    };
    return r;
  }

 private:
  static model::Kind kind_of(const nlohmann::json& doc) {
    return model::find_kind(doc.at("kind").get<std::string>())->id;
  }
  static model::Key key_of(const nlohmann::json& doc) {
    const auto& m = doc.at("metadata");
    return {m.value("namespace", ""), m.value("name", "")};
  }
  AdmitAnswer ask(AdmitOp op, const nlohmann::json& old_doc, const nlohmann::json& new_doc) {
    stored = nullptr;
    return admit(op, kind_of(op == AdmitOp::kDelete ? old_doc : new_doc), old_doc, new_doc,
                 reader(), settings, stored);
  }

  std::map<model::Kind, std::map<model::Key, nlohmann::json>> objects_;
};

inline nlohmann::json gateway(const std::string& patch = {}) {
  return patched(nlohmann::json::parse(R"({
    "apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressGateway",
    "metadata": {"name": "egw1"},
    "spec": {"clusterDefault": true,
      "ippools": {"ipv4": ["10.6.1.55", "10.6.1.56"], "ipv4DefaultEIP": "10.6.1.56",
                  "ipv6": ["fd00::55", "fd00::56"], "ipv6DefaultEIP": "fd00::55"},
      "nodeSelector": {"selector": {"matchLabels": {"egress": "true"}}}}})"),
                 patch);
}
inline nlohmann::json policy(const std::string& patch = {}) {
  return patched(nlohmann::json::parse(R"({
    "apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressPolicy",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"egressGatewayName": "egw1",
      "appliedTo": {"podSelector": {"matchLabels": {"app": "web"}}}}})"),
                 patch);
}
inline nlohmann::json cluster_policy(const std::string& patch = {}) {
  return patched(nlohmann::json::parse(R"({
    "apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressClusterPolicy",
    "metadata": {"name": "all"},
    "spec": {"egressGatewayName": "egw1", "appliedTo": {"podSelector": {}}}})"),
                 patch);
}
inline nlohmann::json node(const std::string& patch = {}) {
  return patched(nlohmann::json::parse(R"({"apiVersion": "v1", "kind": "Node",
    "metadata": {"name": "n1", "labels": {"egress": "true"}},
    "spec": {"podCIDRs": ["10.244.1.0/24", "fd01::/64"]},
    "status": {"addresses": [{"type": "InternalIP", "address": "10.6.1.21"},
                             {"type": "InternalIP", "address": "fd00::21"}]}})"),
                 patch);
}
inline nlohmann::json cluster_info(const std::string& patch = {}) {
  return patched(nlohmann::json::parse(R"({
    "apiVersion": "egressgateway.spidernet.io/v1beta1", "kind": "EgressClusterInfo",
    "metadata": {"name": "default"}, "spec": {},
    "status": {"clusterIP": {"ipv4": ["10.96.0.0/16"]},
      "podCIDR": {"n2": {"ipv4": ["10.244.2.0/24"]}}, "nodeIP": {"n2": {"ipv4": ["10.6.1.22"]}},
      "extraCidr": ["10.6.0.0/16"], "nextEgressId": 3}})"),
                 patch);
}

}  // namespace egw::core
