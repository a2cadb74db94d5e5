// Routes of the HTTP servers (endpoints.hpp).
#include "egw/runtime/endpoints.hpp"

#include <utility>

namespace egw::runtime {
namespace asio = boost::asio;
using nlohmann::json;

namespace {

HttpResponse text(unsigned status, std::string body) {
  HttpResponse response;
  response.status = status;
  response.body = std::move(body);
  return response;
}
HttpResponse document(const json& value) {
  HttpResponse response;
  response.content_type = "application/json";
  response.body = value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  return response;
}
HttpResponse answer(const Result<json>& result) {
  if (result) return document(*result);
  return text(503, result.error().to_string() + "\n");
}
HttpResponse not_found() { return text(404, "no such path\n"); }

// The path alone, and only for the method that it knows.
std::string route(const HttpRequest& request) {
  return request.method + " " + request.target.substr(0, request.target.find('?'));
}

class Health final : public HttpHandler {
 public:
  explicit Health(HealthChecks checks) : checks_(std::move(checks)) {}
  asio::awaitable<HttpResponse> handle(HttpRequest request) override {
    const std::string path = route(request);
    if (path == "GET /healthz") co_return text(200, "ok\n");
    if (path == "GET /readyz") co_return verdict(checks_.ready());
    if (path == "GET /startupz") co_return verdict(checks_.started());
    co_return not_found();
  }

 private:
  static HttpResponse verdict(bool good) {
    return good ? text(200, "ok\n") : text(503, "not yet\n");
  }
  HealthChecks checks_;
};

class Scrape final : public HttpHandler {
 public:
  Scrape(const Metrics& metrics, Agent* agent) : metrics_(metrics), agent_(agent) {}
  asio::awaitable<HttpResponse> handle(HttpRequest request) override {
    if (route(request) != "GET /metrics") co_return not_found();
    if (agent_ != nullptr) co_await agent_->refresh_metrics();
    HttpResponse response = text(200, metrics_.text());
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    co_return response;
  }

 private:
  const Metrics& metrics_;
  Agent* agent_;
};

class Either final : public HttpHandler {
 public:
  Either(std::shared_ptr<HttpHandler> first, std::shared_ptr<HttpHandler> second)
      : first_(std::move(first)), second_(std::move(second)) {}
  asio::awaitable<HttpResponse> handle(HttpRequest request) override {
    HttpRequest copy = request;
    HttpResponse response = co_await first_->handle(std::move(copy));
    if (response.status == 404) response = co_await second_->handle(std::move(request));
    co_return response;
  }

 private:
  std::shared_ptr<HttpHandler> first_, second_;
};

HttpResponse set_log_level(Logger& log, const std::string& body) {
  const auto end = body.find_last_not_of(" \r\n\t\"");
  const auto start = body.find_first_not_of(" \r\n\t\"");
  const auto level = start == std::string::npos
                         ? std::nullopt
                         : parse_log_level(body.substr(start, end - start + 1));
  if (!level) return text(400, "want one of debug, info, warn, error\n");
  log.set_level(*level);
  log.info("log level changed", {{"to", to_string(*level)}});
  return text(200, std::string(to_string(*level)) + "\n");
}

class AgentAdmin final : public HttpHandler {
 public:
  AgentAdmin(Agent& agent, Logger& log) : agent_(agent), log_(log) {}
  asio::awaitable<HttpResponse> handle(HttpRequest request) override {
    const std::string path = route(request);
    if (path == "GET /state") co_return document(agent_.state());
    if (path == "GET /desired") co_return document(agent_.desired());
    if (path == "GET /observe") co_return answer(co_await agent_.observe());
    if (path == "GET /counters") co_return answer(co_await agent_.counters());
    if (path == "POST /log-level") co_return set_log_level(log_, request.body);
    co_return not_found();
  }

 private:
  Agent& agent_;
  Logger& log_;
};

class ControllerAdmin final : public HttpHandler {
 public:
  ControllerAdmin(Controller& controller, Logger& log) : controller_(controller), log_(log) {}
  asio::awaitable<HttpResponse> handle(HttpRequest request) override {
    const std::string path = route(request);
    if (path == "GET /state") co_return document(controller_.state());
    if (path == "POST /log-level") co_return set_log_level(log_, request.body);
    co_return not_found();
  }

 private:
  Controller& controller_;
  Logger& log_;
};

}  // namespace

std::shared_ptr<HttpHandler> health_endpoints(HealthChecks checks) {
  return std::make_shared<Health>(std::move(checks));
}
std::shared_ptr<HttpHandler> metrics_endpoints(const Metrics& metrics, Agent* agent) {
  return std::make_shared<Scrape>(metrics, agent);
}
std::shared_ptr<HttpHandler> either(std::shared_ptr<HttpHandler> first,
                                    std::shared_ptr<HttpHandler> second) {
  return std::make_shared<Either>(std::move(first), std::move(second));
}
std::shared_ptr<HttpHandler> admin_endpoints(Agent& agent, Logger& log) {
  return std::make_shared<AgentAdmin>(agent, log);
}
std::shared_ptr<HttpHandler> admin_endpoints(Controller& controller, Logger& log) {
  return std::make_shared<ControllerAdmin>(controller, log);
}

}  // namespace egw::runtime
