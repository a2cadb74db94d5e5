// See crds.hpp.
#include "kube/support/crds.hpp"

#include <yaml-cpp/yaml.h>

#include <filesystem>

namespace egw::kube::test {

using nlohmann::json;

namespace {

// All scalars of a CRD that matter here are strings, numbers and booleans of YAML's core schema.
json to_json(const YAML::Node& node) {
  if (node.IsMap()) {
    json out = json::object();
    for (const auto& entry : node) out[entry.first.Scalar()] = to_json(entry.second);
    return out;
  }
  if (node.IsSequence()) {
    json out = json::array();
    for (const auto& entry : node) out.push_back(to_json(entry));
    return out;
  }
  if (node.Tag() == "!") return node.Scalar();  // quoted
  const json plain = json::parse(node.Scalar(), nullptr, false);
  return plain.is_number() || plain.is_boolean() ? plain : json(node.Scalar());
}

json open_crd(const char* kind, const char* singular, const char* plural, bool namespaced) {
  const json open = {{"type", "object"}, {"x-kubernetes-preserve-unknown-fields", true}};
  json status = open;
  status["properties"]["term"] = {{"type", "integer"}, {"format", "int64"}};
  status["x-kubernetes-validations"] =
      json::array({{{"rule", "!has(oldSelf.term) || (has(self.term) && self.term >= oldSelf.term)"},
                    {"message", "status.term must not fall"}}});
  const json spec = {{"x-kubernetes-preserve-unknown-fields", true}};
  json version = {{"name", "v1beta1"}, {"served", true}, {"storage", true}};
  version["subresources"]["status"] = json::object();
  version["schema"]["openAPIV3Schema"] = {{"type", "object"},
                                          {"properties", {{"spec", spec}, {"status", status}}}};
  const std::string group = "egressgateway.spidernet.io";
  return {{"apiVersion", "apiextensions.k8s.io/v1"},
          {"kind", "CustomResourceDefinition"},
          {"metadata", {{"name", std::string(plural) + "." + group}}},
          {"spec",
           {{"group", group},
            {"scope", namespaced ? "Namespaced" : "Cluster"},
            {"names", {{"kind", kind}, {"singular", singular}, {"plural", plural}}},
            {"versions", json::array({version})}}}};
}

}  // namespace

std::vector<json> open_crds() {
  return {open_crd("EgressGateway", "egressgateway", "egressgateways", false),
          open_crd("EgressPolicy", "egresspolicy", "egresspolicies", true)};
}

json of_group(json crd, const std::string& group) {
  crd["metadata"]["name"] = crd["spec"]["names"]["plural"].get<std::string>() + "." + group;
  crd["spec"]["group"] = group;
  crd["spec"]["names"].erase("shortNames");
  return crd;
}

std::vector<json> shipped_crds() {
  std::vector<json> out;
  for (const auto& file : std::filesystem::directory_iterator(EGW_CRD_FOLDER)) {
    if (file.path().extension() != ".yaml") continue;
    out.push_back(to_json(YAML::LoadFile(file.path().string())));
  }
  return out;
}

}  // namespace egw::kube::test
