// See config.hpp.
#include "config.hpp"

#include <arpa/inet.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "egw/sdk/status.hpp"

namespace egw::kube {

using nlohmann::json;
using std::chrono::milliseconds;

namespace {

constexpr const char* kWebhook = "webhook.";

[[noreturn]] void refuse(const std::string& key, const std::string& wanted) {
  throw sdk::Failure(sdk::Code::kInvalid, "wanted " + wanted, "config." + key);
}

void refuse_unknown(const json& object, const std::string& prefix,
                    const std::set<std::string>& known) {
  for (const auto& [key, value] : object.items()) {
    if (known.count(key) == 0) refuse(prefix + key, "no such key");
  }
}

json parse(std::string_view text, std::set<std::string> known) {
  if (text.empty()) return json::object();
  json config = json::parse(text, nullptr, false);
  if (config.is_null()) return json::object();
  if (!config.is_object()) {
    throw sdk::Failure(sdk::Code::kInvalid, "the configuration must be an object");
  }
  known.insert({"kubeconfig", "context", "serviceAccountFolder", "namespace", "requestTimeout"});
  refuse_unknown(config, "", known);
  return config;
}

// prefix: where the object stands, for messages.
void read_text(const json& config, const char* key, bool may_be_empty, std::string& out,
               const std::string& prefix = "") {
  const auto it = config.find(key);
  if (it == config.end()) return;
  if (!it->is_string() || (!may_be_empty && it->get_ref<const std::string&>().empty())) {
    refuse(prefix + key, "a text");
  }
  out = it->get<std::string>();
  if (out.size() > 4000 || out.find('\0') != std::string::npos) {
    refuse(prefix + key, "a shorter text");
  }
}

void read_seconds(const json& config, const char* key, double least, double most,
                  milliseconds& out) {
  const auto it = config.find(key);
  if (it == config.end()) return;
  if (!it->is_number() || *it < least || *it > most) {
    refuse(key, "seconds from " + json(least).dump() + " to " + json(most).dump());
  }
  out = milliseconds(std::llround(it->get<double>() * 1000));
}

ConnectionConfig read_connection(const json& config) {
  ConnectionConfig out;
  out.access.service_account_folder = kServiceAccountFolder;
  read_text(config, "kubeconfig", true, out.access.kubeconfig);
  read_text(config, "context", true, out.access.context);
  read_text(config, "serviceAccountFolder", false, out.access.service_account_folder);
  read_text(config, "namespace", true, out.ns);
  // The host gives a call 5 s.
  read_seconds(config, "requestTimeout", 0.1, 4.5, out.request_timeout);
  return out;
}

bool is_address(const std::string& text) {
  std::array<unsigned char, sizeof(in6_addr)> binary{};
  return ::inet_pton(AF_INET, text.c_str(), binary.data()) == 1 ||
         ::inet_pton(AF_INET6, text.c_str(), binary.data()) == 1;
}

// A DNS name or an IP address.
bool is_name(const std::string& text) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyz0123456789.-";
  return is_address(text) || (!text.empty() && text.size() <= 253 &&
                              text.find_first_not_of(kPlain) == std::string::npos &&
                              text.find_first_not_of("0123456789.") != std::string::npos);
}

std::vector<std::string> read_names(const json& names) {
  std::vector<std::string> out;
  const char* wanted = "a list of at most 50 lower-case DNS names (*.NAME, too) and IP addresses";
  if (!names.is_array() || names.size() > 50) refuse("webhook.names", wanted);
  for (const json& name : names) {
    if (!name.is_string()) refuse("webhook.names", wanted);
    const std::string text = name;
    const bool wild = text.starts_with("*.");
    const std::string plain = text.substr(wild ? 2 : 0);
    if (!is_name(plain) || (wild && is_address(plain))) refuse("webhook.names", wanted);
    out.push_back(text);
  }
  return out;
}

void read_certificate(const json& config, WebhookConfig& out) {
  std::string source = "selfSigned";
  read_text(config, "certificate", false, source, kWebhook);
  read_text(config, "folder", true, out.folder, kWebhook);
  if (source != "selfSigned" && source != "provided") {
    refuse("webhook.certificate", "selfSigned or provided");
  }
  if (source == "provided" && out.folder.empty()) {
    refuse("webhook.folder", "the folder of tls.crt and tls.key, for certificate: provided");
  }
  if (source == "selfSigned" && !out.folder.empty()) {
    refuse("webhook.folder", "certificate: provided beside it; a self-made one is in no folder");
  }
}

WebhookConfig read_webhook(const json& all) {
  WebhookConfig out;
  const auto it = all.find("webhook");
  if (it == all.end()) return out;
  if (!it->is_object()) refuse("webhook", "an object");
  const json& config = *it;
  refuse_unknown(config, kWebhook,
                 {"enabled", "address", "port", "service", "names", "configuration", "certificate",
                  "secret", "folder"});
  if (const auto on = config.find("enabled"); on != config.end()) {
    if (!on->is_boolean()) refuse("webhook.enabled", "true or false");
    out.enabled = *on;
  }
  if (const auto port = config.find("port"); port != config.end()) {
    if (!port->is_number_integer() || *port < 1 || *port > 65535) {
      refuse("webhook.port", "a port from 1 to 65535");
    }
    out.port = *port;
  }
  read_text(config, "address", false, out.address, kWebhook);
  if (!is_address(out.address)) refuse("webhook.address", "an IPv4 or IPv6 address");
  for (const auto& [key, text] :
       {std::pair{"service", &out.service}, std::pair{"configuration", &out.configuration},
        std::pair{"secret", &out.secret}}) {
    read_text(config, key, false, *text, kWebhook);
    if (!is_name(*text)) refuse(std::string(kWebhook) + key, "the name of an object");
  }
  if (const auto names = config.find("names"); names != config.end()) {
    out.names = read_names(*names);
  }
  read_certificate(config, out);
  return out;
}

}  // namespace

StoreConfig parse_store_config(std::string_view text, bool serves_admission) {
  const json config = parse(text, {"termLease", "webhook"});
  StoreConfig out;
  if (serves_admission) out.webhook = read_webhook(config);
  out.connection = read_connection(config);
  read_text(config, "termLease", false, out.term_lease);
  return out;
}

ElectionConfig parse_election_config(std::string_view text) {
  const json config = parse(text, {"lease", "leaseDuration", "renewDeadline", "retryPeriod"});
  ElectionConfig out;
  out.connection = read_connection(config);
  read_text(config, "lease", false, out.lease);
  read_seconds(config, "leaseDuration", 1, 3600, out.lease_duration);
  read_seconds(config, "renewDeadline", 0.2, 3600, out.renew_deadline);
  read_seconds(config, "retryPeriod", 0.1, 3600, out.retry_period);
  // A Lease has whole seconds.
  if (out.lease_duration.count() % 1000 != 0) refuse("leaseDuration", "whole seconds");
  // As client-go's LeaderElectionConfig (NewLeaderElector).
  if (out.lease_duration <= out.renew_deadline) {
    refuse("leaseDuration",
           "more than renewDeadline (" + std::to_string(out.renew_deadline.count()) + " ms)");
  }
  if (out.renew_deadline.count() * 10 <= out.retry_period.count() * 12) {
    refuse("renewDeadline",
           "more than 1.2 times retryPeriod (" + std::to_string(out.retry_period.count()) + " ms)");
  }
  return out;
}

}  // namespace egw::kube
