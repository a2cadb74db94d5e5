// See certificate_source.hpp.
#include "certificate_source.hpp"

#include <filesystem>

#include "base64.hpp"

namespace egw::kube {

using nlohmann::json;
using sdk::Code;

namespace {

constexpr int kAttempts = 5;  // when another replica writes the same object

// By which the API server asks.
std::string service_name(const WebhookConfig& config, const std::string& ns) {
  return config.service + "." + ns + ".svc";
}

// ---- files -------------------------------------------------------------------------------------

class ProvidedCertificate : public CertificateSource {
 public:
  ProvidedCertificate(const WebhookConfig& config, const std::string& ns)
      : folder_(config.folder), names_({service_name(config, ns)}) {
    names_.insert(names_.end(), config.names.begin(), config.names.end());
  }

  sdk::Outcome<Serving> look(WallTime now) override {
    try {
      Serving out;
      out.pair.certificate = read_file(folder_ + "/tls.crt");
      out.pair.key = read_file(folder_ + "/tls.key");
      const std::string authorities = folder_ + "/ca.crt";
      std::error_code ignored;
      if (std::filesystem::exists(authorities, ignored)) {
        out.authorities = merge_authorities(read_file(authorities), "", now);
        if (out.authorities.empty()) {
          return sdk::fail(Code::kInvalid, "there is no valid certificate in it", authorities);
        }
      }
      std::string trouble = trouble_of(out.pair, now);
      if (trouble.empty()) {
        trouble = distrust_of(out.pair.certificate, names_, out.authorities, now);
      }
      if (trouble.empty()) return out;
      return sdk::fail(Code::kInvalid, trouble + "; replace tls.crt and tls.key", folder_);
    } catch (const sdk::Failure& failure) {
      return failure.status();
    }
  }

 private:
  const std::string folder_;
  std::vector<std::string> names_;
};

// ---- the Secret --------------------------------------------------------------------------------

std::string data_of(const json& secret, const char* key) {
  return decode_base64(text_of(member_of(secret, "data"), key)).value_or("");
}

Material material_in(const json& secret) {
  Material out;
  out.authorities = data_of(secret, "ca.crt");
  out.authority_key = data_of(secret, "ca.key");
  out.serving.certificate = data_of(secret, "tls.crt");
  out.serving.key = data_of(secret, "tls.key");
  return out;
}

// What others have written beside it stays.
json with_material(json secret, const Material& material) {
  json& data = secret["data"];
  if (!data.is_object()) data = json::object();
  data["ca.crt"] = encode_base64(material.authorities);
  data["ca.key"] = encode_base64(material.authority_key);
  data["tls.crt"] = encode_base64(material.serving.certificate);
  data["tls.key"] = encode_base64(material.serving.key);
  return secret;
}

class SharedCertificate : public CertificateSource {
 public:
  SharedCertificate(Api& api, const WebhookConfig& config, const std::string& ns, Stop& stop,
                    const sdk::Host& host, std::function<void()> changed)
      : secret_(api, Resource("", "v1", "Secret", "secrets", true), ns, config.secret, stop, host,
                std::move(changed)),
        names_({service_name(config, ns), service_name(config, ns) + ".cluster.local",
                config.service + "." + ns}) {
    empty_ = {{"apiVersion", "v1"},
              {"kind", "Secret"},
              {"type", "Opaque"},
              {"metadata", {{"name", config.secret}, {"namespace", ns}}}};
    names_.insert(names_.end(), config.names.begin(), config.names.end());
  }

  sdk::Outcome<Serving> look(WallTime now) override {
    sdk::Status status;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      const sdk::Outcome<json> stored = attempt == 0 ? secret_.look() : secret_.read();
      const bool missing = !stored.ok() && stored.status().code == Code::kNotFound;
      if (!stored.ok() && !missing) return stored.status();
      Material material = missing ? Material() : material_in(stored.value());
      try {
        if (!renew(material, names_, now)) return serving(material);
      } catch (const sdk::Failure& failure) {
        return failure.status();
      }
      status = missing ? secret_.create(with_material(empty_, material))
                       : secret_.update(with_material(stored.value(), material));
      if (status.ok()) return serving(material);
      if (!another_was_faster(status)) break;
    }
    return status;
  }

 private:
  static Serving serving(const Material& material) {
    return {material.serving, material.authorities, true};
  }

  WatchedObject secret_;
  std::vector<std::string> names_;
  json empty_;
};

// ---- the configurations ------------------------------------------------------------------------

bool has_webhooks(const json& configuration) {
  const auto hooks = configuration.find("webhooks");
  return hooks != configuration.end() && hooks->is_array() && !hooks->empty();
}

// Whether anything was changed. Precondition: has_webhooks().
bool set_authorities(json& configuration, const Serving& serving, WallTime now) {
  bool changed = false;
  for (json& hook : configuration["webhooks"]) {
    if (!hook.is_object() || !hook["clientConfig"].is_object()) continue;
    json& bundle = hook["clientConfig"]["caBundle"];
    std::string wanted = serving.authorities;
    if (!serving.only_these && bundle.is_string()) {
      const std::string known = decode_base64(bundle.get<std::string>()).value_or("");
      wanted = merge_authorities(known, serving.authorities, now);
    }
    const std::string text = encode_base64(wanted);
    if (bundle == text) continue;
    bundle = text;
    changed = true;
  }
  return changed;
}

sdk::Status tell_one(WatchedObject& configuration, const Serving& serving, WallTime now) {
  sdk::Status status;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    sdk::Outcome<json> stored = attempt == 0 ? configuration.look() : configuration.read();
    if (!stored.ok()) return stored.status();
    if (!has_webhooks(*stored)) {
      return sdk::fail(Code::kInvalid,
                       "it has no webhooks, so that the API server asks nobody; install the chart "
                       "again, or the configuration by hand",
                       configuration.text());
    }
    if (!set_authorities(*stored, serving, now)) return sdk::ok();
    status = configuration.update(*stored);
    if (!another_was_faster(status)) break;
  }
  return status;
}

}  // namespace

std::unique_ptr<CertificateSource> provided_certificate(const WebhookConfig& config,
                                                        const std::string& ns) {
  return std::make_unique<ProvidedCertificate>(config, ns);
}

std::unique_ptr<CertificateSource> shared_certificate(Api& api, const WebhookConfig& config,
                                                      const std::string& ns, Stop& stop,
                                                      const sdk::Host& host,
                                                      std::function<void()> changed) {
  return std::make_unique<SharedCertificate>(api, config, ns, stop, host, std::move(changed));
}

Authorities::Authorities(Api& api, const std::string& configuration, Stop& stop,
                         const sdk::Host& host, const std::function<void()>& changed) {
  for (const auto& [kind, plural] :
       {std::pair{"MutatingWebhookConfiguration", "mutatingwebhookconfigurations"},
        std::pair{"ValidatingWebhookConfiguration", "validatingwebhookconfigurations"}}) {
    configurations_.push_back(std::make_unique<WatchedObject>(
        api, Resource("admissionregistration.k8s.io", "v1", kind, plural, false), "", configuration,
        stop, host, changed));
  }
}

sdk::Status Authorities::tell(const Serving& serving, WallTime now) {
  for (const auto& configuration : configurations_) {
    if (sdk::Status s = tell_one(*configuration, serving, now); !s.ok()) return s;
  }
  return sdk::ok();
}

}  // namespace egw::kube
