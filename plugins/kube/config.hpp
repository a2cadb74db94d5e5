// Configuration of the two plugins of this folder, read from the JSON that the host has checked
// against the schemas in schema.hpp; what a schema cannot say is checked here.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "access.hpp"

namespace egw::kube {

inline constexpr std::string_view kServiceAccountFolder =
    "/var/run/secrets/kubernetes.io/serviceaccount";

// Both plugins' way to the API server.
struct ConnectionConfig {
  AccessOptions access;
  std::chrono::milliseconds request_timeout{4000};
  std::string ns;  // where egw's own objects are; empty: as the access says
};

// The admission webhook of a controller.
struct WebhookConfig {
  bool enabled = false;
  std::string address = "0.0.0.0";
  std::uint16_t port = 5822;
  std::string service = "egw-webhook";  // in front of it, in the namespace of egw's own objects
  std::vector<std::string> names;       // further ones of the self-made certificate
  std::string configuration = "egw-webhook";  // of both kinds of webhook configuration
  std::string secret = "egw-webhook";         // of the self-made certificate
  std::string folder;                         // of the provided certificate; empty: self-made
};

struct StoreConfig {
  ConnectionConfig connection;
  std::string term_lease = "egw-term";
  WebhookConfig webhook;
};

struct ElectionConfig {
  ConnectionConfig connection;
  std::string lease = "egw-controller";
  std::chrono::milliseconds lease_duration{15'000}, renew_deadline{10'000}, retry_period{2'000};
};

// Empty text: all defaults. Throw sdk::Failure (kInvalid) naming the key.
// serves_admission: of a process that never does, the section webhook is not looked at.
[[nodiscard]] StoreConfig parse_store_config(std::string_view json, bool serves_admission);
[[nodiscard]] ElectionConfig parse_election_config(std::string_view json);

}  // namespace egw::kube
