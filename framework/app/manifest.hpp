// Objects from files: what `apply -f` and `delete -f` read, and how `apply` merges one with what is
// stored.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "egw/model/meta.hpp"
#include "egw/model/result.hpp"

namespace egw::app {

struct Manifest {
  model::Kind kind;
  model::Key key;
  nlohmann::json document;
  std::string source;                       // "FILE" or "FILE document 3"
  [[nodiscard]] std::string label() const;  // "egresspolicy.egressgateway.spidernet.io/web"
};

// Every document of the files, folders (*.yaml, *.yml, *.json, sorted) and "-", `List`s taken
// apart. One that is refused stands as an error in its place. ns: -n, empty: not given.
[[nodiscard]] std::vector<Result<Manifest>> read_manifests(const std::vector<std::string>& paths,
                                                           const std::string& ns);

// The same in the order in which they have to be stored: what others refer to comes first, whatever
// the order of the files, so that a policy finds its gateway, and of two that cannot both be, the
// later one is at fault. An object that stands there twice is read once: the second is an error.
struct ManifestSet {
  std::vector<Manifest> manifests;
  std::vector<Error> unreadable;
};
[[nodiscard]] ManifestSet read_in_order(const std::vector<std::string>& paths,
                                        const std::string& ns);

// Checks one document. source as above.
[[nodiscard]] Result<Manifest> to_manifest(nlohmann::json document, const std::string& ns,
                                           const std::string& source);

// The order in which apply and check judge what read_in_order() gave: as it stands, but what is
// refused is tried again after the rest of its rank (namespaces and nodes, ClusterInfo, gateways,
// what uses them) for as long as that changes something: an address may pass from one gateway of a
// file to another.
enum class Attempt { kRefused, kUnchanged, kChanged };
void in_passes(const std::vector<Manifest>& manifests,
               const std::function<Attempt(std::size_t index)>& attempt);

// What `apply` writes; stored: null when there is nothing. Everything but metadata and status as in
// `wanted`. Labels and annotations as kubectl merges them: those of `wanted`, without what an
// earlier apply gave (kAppliedAnnotation, or kubectl's own record) and this one does not, and what
// others have set stays. Finalizers where it gives them, and what admission has to refuse; the rest
// of the metadata, the status, and what admission filled in and the manifest leaves out (gateway,
// EIPs) as stored. Requests to the leader (annotations of egw's own group) stay.
[[nodiscard]] nlohmann::json merge_applied(model::Kind kind, const nlohmann::json& stored,
                                           const nlohmann::json& wanted);

// Equal but for what the store itself writes (revision, generation) and the status.
[[nodiscard]] bool same_but_status(const nlohmann::json& a, const nlohmann::json& b);

// "KIND" (also "a,b,c") from the command line. kInvalid with a suggestion.
[[nodiscard]] Result<std::vector<model::Kind>> parse_kinds(const std::string& text);

}  // namespace egw::app
