import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { pathOf } from '../../test/harness/runner/describe-with.ts'
import { overlayPrefix } from './overlay.ts'
import type { PeerCommand } from './pop3-peers.ts'

/** Input of every front: the same certificate, server and number of workers. */
export type TlsSite = {
  readonly directory: string
  readonly certificate: string
  readonly key: string
  /** Certificate and key in one file. */
  readonly both: string
  /** Port of the server behind, on 127.0.0.1. */
  readonly behind: number
  readonly workers: number
}

/** A new certificate with an ECDSA key, in files of the directory; `both` has the two in one. */
export function makeCertificate(directory: string): Pick<TlsSite, 'certificate' | 'key' | 'both'> {
  const [certificate, key, both] = [`${directory}/tls.crt`, `${directory}/tls.key`, `${directory}/both.pem`]
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  const out = ['-keyout', key, '-out', certificate, '-subj', '/CN=bench', '-days', '90']
  const { status, stderr } = spawnSync('openssl', ['req', '-x509', ...curve, ...out])
  if (status !== 0) throw new Error(`openssl: ${String(stderr)}`)
  chmodSync(key, 0o600)
  writeFileSync(both, readFileSync(certificate, 'utf8') + readFileSync(key, 'utf8'), { mode: 0o600 })
  return { certificate, key, both }
}

export type TlsPeer = {
  readonly name: string
  readonly debianPackage: string
  /** True if it is installed; otherwise it is unpacked. */
  readonly installed: boolean
  readonly command: (site: TlsSite, port: number) => PeerCommand
}

function haproxy({ directory, both, behind, workers }: TlsSite, port: number): PeerCommand {
  const settings = `global
  nbthread ${workers}
  maxconn 5000
defaults
  mode tcp
  timeout connect 10s
  timeout client 1260s
  timeout server 1260s
listen front
  bind 127.0.0.1:${port} ssl crt ${both} ssl-min-ver TLSv1.2
  server behind 127.0.0.1:${behind}
`
  writeFileSync(`${directory}/haproxy.cfg`, settings)
  return { command: [pathOf('haproxy') ?? 'haproxy', '-db', '-f', `${directory}/haproxy.cfg`], settings }
}

function stunnel({ directory, certificate, key, behind }: TlsSite, port: number): PeerCommand {
  const settings = `foreground = yes
pid =
debug = 3
syslog = no
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[front]
accept = 127.0.0.1:${port}
connect = 127.0.0.1:${behind}
cert = ${certificate}
key = ${key}
`
  writeFileSync(`${directory}/stunnel.conf`, settings)
  return { command: [pathOf('stunnel4') ?? 'stunnel4', `${directory}/stunnel.conf`], settings }
}

function nginx({ directory, certificate, key, behind, workers }: TlsSite, port: number): PeerCommand {
  const settings = `load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
user nobody nogroup;
worker_processes ${workers};
events {
  worker_connections 5000;
}
stream {
  server {
    listen 127.0.0.1:${port} ssl reuseport;
    proxy_pass 127.0.0.1:${behind};
    ssl_certificate ${certificate};
    ssl_certificate_key ${key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:front:10m;
    proxy_timeout 1260s;
    tcp_nodelay on;
  }
}
error_log stderr error;
pid ${directory}/nginx.pid;
`
  writeFileSync(`${directory}/nginx.conf`, settings)
  return { command: [pathOf('nginx') ?? 'nginx', '-c', `${directory}/nginx.conf`, '-e', 'stderr'], settings }
}

function hitch({ directory, both, behind, workers }: TlsSite, port: number): PeerCommand {
  const settings = `frontend = "[127.0.0.1]:${port}"
backend = "[127.0.0.1]:${behind}"
pem-file = "${both}"
workers = ${workers}
user = "nobody"
group = "nogroup"
tls-protos = TLSv1.2 TLSv1.3
daemon = off
quiet = on
`
  const own = `${directory}/hitch`
  mkdirSync(own, { recursive: true })
  writeFileSync(`${own}/hitch.conf`, settings)
  const prefix = overlayPrefix({ packages: ['hitch', 'libev4'], directory: own, files: {}, state: ['hitch'] })
  return { command: [...prefix, 'hitch', '--config', `${own}/hitch.conf`], settings }
}

/** The peers of sslwrap. */
export const TLS_PEERS: readonly TlsPeer[] = [
  { name: 'haproxy', debianPackage: 'haproxy', installed: true, command: haproxy },
  { name: 'stunnel', debianPackage: 'stunnel4', installed: true, command: stunnel },
  { name: 'nginx stream', debianPackage: 'libnginx-mod-stream', installed: true, command: nginx },
  { name: 'hitch', debianPackage: 'hitch', installed: false, command: hitch },
]
