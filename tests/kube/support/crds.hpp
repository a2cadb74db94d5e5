// CustomResourceDefinitions for the tests of this folder.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace egw::kube::test {

// With the names of two of egw's kinds and open schemas, for tests of the plugins, which know no
// kind by heart; the status of both has a term that must not fall.
std::vector<nlohmann::json> open_crds();
// Those of config/crds.
std::vector<nlohmann::json> shipped_crds();
// The same in another group, without short names.
nlohmann::json of_group(nlohmann::json crd, const std::string& group);

}  // namespace egw::kube::test
