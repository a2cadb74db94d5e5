// Resources to and from JSON in their Kubernetes shape. Unknown fields are ignored on decode and
// named by unknown_fields(), but for those of a status, which are kept for the next write; a wrong
// type is an error that names the field's path.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "egw/model/resources.hpp"

namespace egw::model {

// Specialised in codec_*.cpp for every resource of resources.hpp. Every field that does not fit is
// added to `faults` (object: its path; message: the value and what is wanted) and reads as absent.
template <class R>
[[nodiscard]] R decode(const nlohmann::json& document, std::vector<Error>& faults);
// The first fault is the error.
template <class R>
[[nodiscard]] Result<R> decode(const nlohmann::json& document) {
  std::vector<Error> faults;
  R out = decode<R>(document, faults);
  if (!faults.empty()) return tl::unexpected(std::move(faults.front()));
  return out;
}
// For one that is stored: what a status has that does not fit is added to `damage` and reads as
// absent, and the object says so (status_damaged), for the leader writes its statuses anew. Only a
// fault elsewhere is an error.
template <class R>
[[nodiscard]] Result<R> decode_stored(const nlohmann::json& document, std::vector<Error>& damage) {
  std::vector<Error> faults;
  R out = decode<R>(document, faults);
  for (Error& fault : faults) {
    const std::string_view path = fault.object;
    constexpr std::string_view kStatus = "status";
    const bool in_status =
        path.starts_with(kStatus) && (path.size() == kStatus.size() ||
                                      path[kStatus.size()] == '.' || path[kStatus.size()] == '[');
    if (!in_status) return tl::unexpected(std::move(fault));
    damage.push_back(std::move(fault));
  }
  if constexpr (requires { out.status_damaged; }) out.status_damaged = !faults.empty();
  return out;
}
// apiVersion, kind, metadata, spec; and status unless it is empty.
template <class R>
[[nodiscard]] nlohmann::json encode(const R& resource);
// The status alone (the value of the "status" key), with what `unknown_status` has of fields that
// this version does not know. Not for the core kinds.
template <class R>
[[nodiscard]] nlohmann::json encode_status(const R& resource);

// One line per resource keeps the specialisations known wherever this header is.
template <>
EgressGateway decode(const nlohmann::json& document, std::vector<Error>& faults);
template <>
nlohmann::json encode(const EgressGateway& resource);
template <>
nlohmann::json encode_status(const EgressGateway& resource);
template <>
EgressPolicy decode(const nlohmann::json& document, std::vector<Error>& faults);
// As an EgressClusterPolicy when meta.ns is empty: World keeps both kinds as EgressPolicy.
template <>
nlohmann::json encode(const EgressPolicy& resource);
template <>
nlohmann::json encode_status(const EgressPolicy& resource);
template <>
EgressClusterPolicy decode(const nlohmann::json& document, std::vector<Error>& faults);
template <>
nlohmann::json encode(const EgressClusterPolicy& resource);
template <>
nlohmann::json encode_status(const EgressClusterPolicy& resource);
template <>
EgressTunnel decode(const nlohmann::json& document, std::vector<Error>& faults);
template <>
nlohmann::json encode(const EgressTunnel& resource);
template <>
nlohmann::json encode_status(const EgressTunnel& resource);
template <>
EgressClusterInfo decode(const nlohmann::json& document, std::vector<Error>& faults);
template <>
nlohmann::json encode(const EgressClusterInfo& resource);
template <>
nlohmann::json encode_status(const EgressClusterInfo& resource);
// Their owner is read from and written to metadata.ownerReferences; there is no status.
template <>
EgressEndpointSlice decode(const nlohmann::json& document, std::vector<Error>& faults);
// As an EgressClusterEndpointSlice when meta.ns is empty.
template <>
nlohmann::json encode(const EgressEndpointSlice& resource);
template <>
EgressClusterEndpointSlice decode(const nlohmann::json& document, std::vector<Error>& faults);
template <>
Node decode(const nlohmann::json& document, std::vector<Error>& faults);
template <>
nlohmann::json encode(const Node& resource);
// Of a Pod only what selects and places it is kept: uid, annotations and finalizers stay empty, so
// that 50,000 of them fit into an agent.
template <>
Pod decode(const nlohmann::json& document, std::vector<Error>& faults);
template <>
nlohmann::json encode(const Pod& resource);
template <>
Namespace decode(const nlohmann::json& document, std::vector<Error>& faults);
template <>
nlohmann::json encode(const Namespace& resource);
template <>
CalicoIpPool decode(const nlohmann::json& document, std::vector<Error>& faults);
template <>
ServiceCidr decode(const nlohmann::json& document, std::vector<Error>& faults);
template <>
Event decode(const nlohmann::json& document, std::vector<Error>& faults);
template <>
nlohmann::json encode(const Event& resource);

[[nodiscard]] Result<ObjectMeta> decode_meta(const nlohmann::json& document);
// What is in the metadata and has not its type, also where egw does not read it (owners).
[[nodiscard]] std::vector<Error> metadata_faults(const nlohmann::json& document);

// A field that the kind does not know: in `metadata`, in `spec` or at the top. `closest` is the
// known path that was probably meant, or empty.
struct UnknownField {
  std::string path;     // "spec.ippool"
  std::string closest;  // "spec.ippools"
};
// Nothing for the core kinds (Node, Pod ...), of which egw reads only a part.
[[nodiscard]] std::vector<UnknownField> find_unknown_fields(Kind kind,
                                                            const nlohmann::json& document);
// The paths alone.
[[nodiscard]] std::vector<std::string> unknown_fields(Kind kind, const nlohmann::json& document);

}  // namespace egw::model
