// JSON Schemas of the configuration of the two plugins (config.hpp); the host checks against them
// and `egw plugin inspect` shows them.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

namespace egw::kube {

namespace schema {

inline constexpr std::string_view kBegin = R"json({
  "$schema": "http://json-schema.org/draft-07/schema#",
  "type": "object",
  "additionalProperties": false,
  "properties": {)json";

inline constexpr std::string_view kConnection = R"json(
    "kubeconfig": {
      "type": "string", "maxLength": 4000, "default": "",
      "description": "Kubeconfig files, separated by ':'. Empty: $KUBECONFIG, else the pod's service account, else ~/.kube/config."
    },
    "context": {
      "type": "string", "maxLength": 300, "default": "",
      "description": "Context of the kubeconfig. Empty: its current-context."
    },
    "serviceAccountFolder": {
      "type": "string", "pattern": "^/", "maxLength": 4000, "default": "/var/run/secrets/kubernetes.io/serviceaccount",
      "description": "Folder with token, ca.crt and namespace of the pod's service account."
    },
    "namespace": {
      "type": "string", "pattern": "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$", "default": "",
      "description": "Where egw keeps its own objects. Empty: the namespace of the service account or context."
    },
    "requestTimeout": {
      "type": "number", "minimum": 0.1, "maximum": 4.5, "default": 4,
      "description": "Seconds that a read may take."
    },)json";

inline constexpr std::string_view kStore = R"json(
    "termLease": {
      "type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", "default": "egw-term",
      "description": "Lease object that records the highest term of a leader's write."
    },
    "webhook": {
      "type": "object", "additionalProperties": false,
      "description": "Admission webhook, served by every controller; agents and verbs ignore it.",
      "properties": {
        "enabled": {
          "type": "boolean", "default": false,
          "description": "Controllers answer the API server's admission questions."
        },
        "address": {
          "type": "string", "maxLength": 64, "default": "0.0.0.0",
          "description": "IP address to listen on; :: for both families."
        },
        "port": {
          "type": "integer", "minimum": 1, "maximum": 65535, "default": 5822,
          "description": "TCP port to listen on."
        },
        "service": {
          "type": "string", "pattern": "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$", "default": "egw-webhook",
          "description": "Service in front of it, in the namespace of egw's own objects."
        },
        "names": {
          "type": "array", "maxItems": 50, "items": {"type": "string", "maxLength": 253},
          "description": "Further DNS names and IP addresses in the self-made certificate; a provided one may be for one of them instead of the Service."
        },
        "configuration": {
          "type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", "default": "egw-webhook",
          "description": "Name of the ValidatingWebhookConfiguration and the MutatingWebhookConfiguration."
        },
        "certificate": {
          "enum": ["selfSigned", "provided"], "default": "selfSigned",
          "description": "selfSigned: made and renewed by the controllers, shared in a Secret. provided: from files."
        },
        "secret": {
          "type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", "default": "egw-webhook",
          "description": "Secret of the self-made certificate, in the namespace of egw's own objects."
        },
        "folder": {
          "type": "string", "maxLength": 4000, "default": "",
          "description": "Folder with tls.crt, tls.key and perhaps ca.crt of the provided certificate."
        }
      }
    }
  }
})json";

inline constexpr std::string_view kElection = R"json(
    "lease": {
      "type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", "default": "egw-controller",
      "description": "Name of the Lease object that the candidates share."
    },
    "leaseDuration": {
      "type": "integer", "minimum": 1, "maximum": 3600, "default": 15,
      "description": "Seconds after which a lease that is not renewed may be taken."
    },
    "renewDeadline": {
      "type": "number", "minimum": 0.2, "maximum": 3600, "default": 10,
      "description": "Seconds after which a leader that cannot renew gives up; less than leaseDuration."
    },
    "retryPeriod": {
      "type": "number", "minimum": 0.1, "maximum": 3600, "default": 2,
      "description": "Seconds between attempts; less than renewDeadline / 1.2."
    }
  }
})json";

template <const std::string_view&... kParts>
struct Joined {
  static constexpr auto kBytes = [] {
    std::array<char, (kParts.size() + ...)> out{};
    std::size_t at = 0;
    const auto append = [&](std::string_view part) {
      for (const char c : part) out[at++] = c;
    };
    (append(kParts), ...);
    return out;
  }();
  static constexpr std::string_view kText{kBytes.data(), kBytes.size()};
};

}  // namespace schema

inline constexpr std::string_view kStoreSchema =
    schema::Joined<schema::kBegin, schema::kConnection, schema::kStore>::kText;
inline constexpr std::string_view kElectionSchema =
    schema::Joined<schema::kBegin, schema::kConnection, schema::kElection>::kText;

}  // namespace egw::kube
