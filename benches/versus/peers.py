"""Weir and its peers: how each is found, set up for a piece of work, and started.

Each function writes the config of one proxy into a folder and gives its command. All get the same
work: one worker, keep-alive to the origin, the same forwarded fields as far as the proxy can say
them, limits high enough never to act, TLS with one P-256 certificate.
"""

import json
import os
import re
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ORIGIN = 19700
ADMIN = 19799
PEERS = {}


class Peer:
    """One proxy: `name`, `works(work)`, and `command(work, port, dir)`."""

    def __init__(self, name, binary, version, can, command):
        self.name, self.version_flag, self.can, self.command = name, version, can, command
        self.binary = find(binary)

    def version(self):
        out = subprocess.run([self.binary, self.version_flag], capture_output=True, text=True)
        return re.search(r"\d+\.\d+(\.\d+)?", out.stdout + out.stderr).group(0)


def find(binary):
    beside = os.path.join(ROOT, "target", "peers", "bin", binary)
    return beside if os.path.exists(beside) else shutil.which(binary)


def peer(name, binary, version, can=lambda work: True):
    def register(command):
        PEERS[name] = Peer(name, binary, version, can, command)
        return command
    return register


def write(dir, name, text):
    path = os.path.join(dir, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def yes(condition, text):
    return text if condition else ""


def nginx_head(dir, name):
    return f"""worker_processes 1; daemon off; pid {dir}/{name}.pid; error_log {dir}/{name}.err;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path {dir}/{name}; proxy_temp_path {dir}/{name}; fastcgi_temp_path {dir}/{name};
  uwsgi_temp_path {dir}/{name}; scgi_temp_path {dir}/{name};
"""


def origin(dir):
    """The origin behind all of them: nginx with files, the small one without a file."""
    conf = nginx_head(dir, "origin") + f"""  root {dir}/files; sendfile on; open_file_cache max=100;
  types {{ application/json json; text/plain txt; }} default_type text/plain;
  server {{ listen 127.0.0.1:{ORIGIN} backlog=4096; add_header Cache-Control max-age=86400;
    location = /ok {{ return 200 "hello world\\n"; }} }} }}
"""
    return [find("nginx"), "-c", write(dir, "origin.conf", conf)]


@peer("nginx", "nginx", "-v")
def nginx(work, port, dir):
    tls = f"ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem; ssl_protocols TLSv1.2 TLSv1.3;"
    conf = nginx_head(dir, "nginx") + f"""
  {yes(work.cache, f'proxy_cache_path {dir}/nginx-cache keys_zone=c:16m max_size=64m inactive=1d;')}
  {yes(work.limits, 'limit_req_zone $binary_remote_addr zone=r:10m rate=1000000r/s; limit_conn_zone $server_name zone=n:1m;')}
  upstream o {{ server 127.0.0.1:{ORIGIN}; keepalive 128; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port}{yes(work.tls, ' ssl')}{yes(work.http2, ' http2')} backlog=4096;
    {yes(work.tls, tls)} {yes(work.log, f'access_log {dir}/nginx.log;')}
    {yes(work.gzip, 'gzip on; gzip_comp_level 6; gzip_proxied any; gzip_types application/json; gzip_vary on;')}
    location / {{ proxy_pass http://o; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
      proxy_set_header Forwarded "for=$remote_addr;proto=$scheme;host=$host";
      proxy_set_header Via "1.1 nginx"; proxy_set_header X-Request-Id $request_id;
      add_header X-Request-Id $request_id;
      {yes(work.cache, 'proxy_cache c; proxy_cache_lock on; add_header X-Cache $upstream_cache_status;')}
      {yes(work.limits, 'limit_req zone=r burst=1000000 nodelay; limit_conn n 60000;')} }} }} }}
"""
    return [find("nginx"), "-c", write(dir, "nginx.conf", conf)]


@peer("weir", "weir", "version")
def weir(work, port, dir):
    limits = """rate_limit = [{ rate = "1000000/s", burst = 1000000, key = "client_ip" }]
concurrency = { max = 60000 }"""
    conf = f"""
[server]
workers = 1
drain   = {{ delay = "0s", timeout = "2s" }}
rate_limit_headers = "off"  # nginx and HAProxy say nothing of their limits
[admin]
address = "127.0.0.1:{ADMIN}"
[log]
level  = "warn"
access = {{ to = "{dir + '/weir.log' if work.log else 'off'}" }}
[listeners.web]
address = "127.0.0.1:{port}"
{yes(work.tls, f'tls = {{ certificates = [{{ cert = "{dir}/cert.pem", key = "{dir}/key.pem" }}] }}')}
[upstreams.o]
endpoints = ["127.0.0.1:{ORIGIN}"]
{yes(work.limits, 'breaker = {}')}
[[routes]]
id       = "all"
upstream = "o"
{yes(work.cache, 'cache = {}')}
{yes(work.gzip, 'compress = { codings = ["gzip"] }')}
{yes(work.limits, limits)}
"""
    return [PEERS["weir"].binary, "run", "--config", write(dir, "weir.toml", conf)]


@peer("haproxy", "haproxy", "-v")
def haproxy(work, port, dir):
    bind = f"bind 127.0.0.1:{port}" + yes(work.tls, f" ssl crt {dir}/both.pem alpn {'h2' if work.http2 else 'http/1.1'}")
    conf = f"""
global
  nbthread 1
  maxconn 32768
  no strict-limits
  tune.comp.maxlevel 6
{yes(work.log, f'  log {dir}/haproxy.sock local0')}
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 60s
  timeout http-keep-alive 600s
{yes(work.log, '  log global' + chr(10) + '  option httplog')}
{yes(work.cache, 'cache c' + chr(10) + '  total-max-size 64' + chr(10) + '  max-age 3600')}
frontend web
  {bind}
  option forwardfor
  http-request set-header X-Forwarded-Proto {'https' if work.tls else 'http'}
  unique-id-format %[uuid()]
  unique-id-header X-Request-Id
{yes(work.limits, '  stick-table type ip size 100k expire 30s store http_req_rate(1s),conn_cur' + chr(10) + '  http-request track-sc0 src' + chr(10) + '  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }')}
{yes(work.gzip, '  compression algo gzip' + chr(10) + '  compression type application/json')}
{yes(work.cache, '  http-request cache-use c' + chr(10) + '  http-response cache-store c')}
  default_backend o
backend o
  http-reuse always
{yes(work.cache, '  http-request cache-use c' + chr(10) + '  http-response cache-store c')}
  server o 127.0.0.1:{ORIGIN} pool-max-conn 128
"""
    return [find("haproxy"), "-db", "-f", write(dir, "haproxy.cfg", conf)]


@peer("envoy", "envoy", "--version", can=lambda work: not work.cache)
def envoy(work, port, dir):
    http = "type.googleapis.com/envoy.extensions.filters.http"
    filters = [{"name": "router", "typed_config": {"@type": f"{http}.router.v3.Router"}}]
    if work.gzip:
        filters.insert(0, {"name": "compressor", "typed_config": {
            "@type": f"{http}.compressor.v3.Compressor",
            "response_direction_config": {"common_config": {"content_type": ["application/json"]}},
            "compressor_library": {"name": "gzip", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip",
                "compression_level": "COMPRESSION_LEVEL_6"}}}})
    if work.limits:
        filters.insert(0, {"name": "limit", "typed_config": {
            "@type": f"{http}.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "l",
            "token_bucket": {"max_tokens": 1000000, "tokens_per_fill": 1000000, "fill_interval": "1s"},
            "filter_enabled": {"default_value": {"numerator": 100}},
            "filter_enforced": {"default_value": {"numerator": 100}}}})
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web", "codec_type": "AUTO", "use_remote_address": True, "via": "envoy",
        "http_filters": filters,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "o"}}]}]}}
    if work.log:
        manager["access_log"] = [{"name": "file", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": f"{dir}/envoy.log"}}]
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    if work.tls:
        chain["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2" if work.http2 else "http/1.1"],
                "tls_certificates": [{"certificate_chain": {"filename": f"{dir}/cert.pem"},
                                      "private_key": {"filename": f"{dir}/key.pem"}}]}}}

    def address(number):
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}
    cluster = {"name": "o", "type": "STATIC", "load_assignment": {"cluster_name": "o", "endpoints": [
        {"lb_endpoints": [{"endpoint": {"address": address(ORIGIN)}}]}]}}
    conf = {"static_resources": {
        "listeners": [{"name": "web", "address": address(port), "filter_chains": [chain]}],
        "clusters": [cluster]}}
    return [find("envoy"), "--concurrency", "1", "--log-level", "error", "--disable-hot-restart",
            "-c", write(dir, "envoy.json", json.dumps(conf))]


@peer("caddy", "caddy", "version", can=lambda work: not (work.cache or work.limits))
def caddy(work, port, dir):
    scheme = "https" if work.tls else "http"
    conf = f"""{{
  admin off
  auto_https off
  persist_config off
  servers {{
    protocols {'h1 h2' if work.http2 else 'h1'}
  }}
}}
{scheme}://127.0.0.1:{port} {{
  bind 127.0.0.1
  {yes(work.tls, f'tls {dir}/cert.pem {dir}/key.pem')}
  {yes(work.log, 'log {' + chr(10) + f'output file {dir}/caddy.log' + chr(10) + '}')}
  {yes(work.gzip, 'encode gzip')}
  reverse_proxy 127.0.0.1:{ORIGIN} {{
    header_up X-Request-Id {{http.request.uuid}}
  }}
}}
"""
    return ["env", "GOMAXPROCS=1", f"HOME={dir}", find("caddy"), "run", "--adapter", "caddyfile",
            "--config", write(dir, "Caddyfile", conf)]


@peer("varnish", "varnishd", "-V", can=lambda work: not (work.tls or work.limits or work.log))
def varnish(work, port, dir):
    vcl = f"""vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{ORIGIN}"; }}
sub vcl_recv {{ {yes(not work.cache and not work.gzip, 'return (pass);')} }}
sub vcl_backend_response {{ {yes(work.gzip, 'set beresp.do_gzip = true; set beresp.uncacheable = true;')} }}
"""
    return [find("varnishd"), "-F", "-j", "none", "-n", f"{dir}/varnish", "-a", f"127.0.0.1:{port}",
            "-s", "malloc,64m", "-p", "thread_pools=1", "-f", write(dir, "varnish.vcl", vcl)]


@peer("squid", "squid", "-v", can=lambda work: work.cache)
def squid(work, port, dir):
    conf = f"""http_port 127.0.0.1:{port} accel defaultsite=localhost no-vhost
cache_peer 127.0.0.1 parent {ORIGIN} 0 no-query originserver name=o
http_access allow all
cache_mem 64 MB
access_log none
cache_log {dir}/squid.err
pid_filename none
coredump_dir none
"""
    os.chmod(dir, 0o777)
    return [find("squid"), "-N", "-f", write(dir, "squid.conf", conf)]
