import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:tls'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { fileInPackage } from '../harness/hosts/unpacked-package.ts'
import { dial, PASS, PopupClient, type PopupStack, startPopup } from '../harness/pop3/popup-stack.ts'
import { makeCertificate, Sslwrap } from '../harness/pop3/sslwrap.ts'
import { Conversation } from '../harness/processes/conversation.ts'
import { Program } from '../harness/processes/program.ts'
import { command, describeWith, type Need, pathOf, ROOT } from '../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

/**
 * Ports for programs that cannot choose one themselves, below the range of the kernel's ephemeral
 * ports.
 */
const firstPort = 21_000 + (process.pid % 1000) * 8
const [haproxyV1, haproxyV2, stunnel, nginx] = [firstPort, firstPort + 1, firstPort + 2, firstPort + 3]

/**
 * True if a socket listens there. Reads the kernel's table, so that the server does not see a
 * connection.
 */
function isListening(port: number): boolean {
  const hex = port.toString(16).toUpperCase().padStart(4, '0')
  return new RegExp(`: [0-9A-F]{8}:${hex} 00000000:0000 0A`).test(readFileSync('/proc/net/tcp', 'utf8'))
}

describeWith([ROOT, command('haproxy'), command('stunnel4')], 'other TLS proxies in front of popup', () => {
  const directory = temporaryDirectory()
  let running: PopupStack
  let programs: readonly Program[] = []
  beforeAll(async () => {
    running = await startPopup()
    const { path } = directory
    const behind = running.stack.port('popup', 0, 'proxy_listen')
    makeCertificate(`${path}/tls`, { names: ['mx.example.org'] })
    writeFileSync(`${path}/both.pem`, readFileSync(`${path}/tls.crt`, 'utf8') + readFileSync(`${path}/tls.key`, 'utf8'))
    const listen = (port: number, header: string): string =>
      `listen p${port}\n  bind 127.0.0.1:${port} ssl crt ${path}/both.pem alpn pop3\n  server s 127.0.0.1:${behind} ${header}`
    writeFileSync(
      `${path}/haproxy.cfg`,
      `${[
        'global\n  maxconn 100',
        'defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s',
        listen(haproxyV1, 'send-proxy'),
        listen(haproxyV2, 'send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,ssl-cipher,authority,crc32c'),
      ].join('\n')}\n`,
    )
    const service = `[p]\naccept = 127.0.0.1:${stunnel}\nconnect = 127.0.0.1:${behind}\nprotocol = proxy`
    const pair = `cert = ${path}/tls.crt\nkey = ${path}/tls.key`
    writeFileSync(`${path}/stunnel.conf`, `foreground = yes\nsyslog = no\npid =\n${pair}\n${service}\n`)
    programs = [
      new Program('haproxy', [pathOf('haproxy') ?? '', '-db', '-f', `${path}/haproxy.cfg`]),
      new Program('stunnel', [pathOf('stunnel4') ?? '', `${path}/stunnel.conf`]),
    ]
    for (const port of [haproxyV1, haproxyV2, stunnel]) {
      const program = programs[port === stunnel ? 1 : 0]
      await program?.waitFor(`port ${port}`, () => isListening(port))
    }
  })
  afterAll(async () => {
    for (const program of programs) await program.stop()
    await running.stop()
    directory.remove()
  })

  test.each([
    ['haproxy, version 1', haproxyV1, '127.0.0.31', '0'],
    ['haproxy, version 2 with TLS fields and CRC32C', haproxyV2, '127.0.0.32', '1'],
    ['stunnel, version 1', stunnel, '127.0.0.33', '0'],
  ])("%s: the login event has the client's address, not the proxy's", async (_, port, ip, tls) => {
    const socket = connect({ socket: dial(port, ip), rejectUnauthorized: false, servername: 'mx.example.org' })
    const pop = new PopupClient(socket)
    await pop.expect(/^\+OK </)
    await pop.ask('USER ann', /^\+OK/)
    await pop.ask(PASS, /^\+OK/)
    await pop.quit()
    await running.stack.waitForLog('popup', { event: 'login_accepted', ip, tls })
  })
})

/** nginx of Debian, unpacked but not installed, because its package would start a web server. */
const NGINX: Need = {
  name: 'nginx and its stream module, unpacked',
  remedy: 'run as root on Debian, with the package archive in reach',
  isThere: () => {
    try {
      return existsSync(nginxFile()) && existsSync(streamModule())
    } catch {
      return false // not Debian, or no archive: the name of the skipped group lists the need
    }
  },
}
const nginxFile = (): string => fileInPackage('nginx', '/usr/sbin/nginx')
const streamModule = (): string => fileInPackage('libnginx-mod-stream', '/usr/lib/nginx/modules/ngx_stream_module.so')

describeWith([ROOT, NGINX], 'sslwrap in front of nginx, which expects a PROXY header', () => {
  test.each(['proxy-v1', 'proxy-v2'])(
    "%s: nginx logs the client's address and the port that the client connected to",
    async preamble => {
      const directory = temporaryDirectory()
      writeFileSync(
        `${directory.path}/nginx.conf`,
        `load_module ${streamModule()};
daemon off; master_process off; pid ${directory.path}/pid; error_log stderr;
events {}
stream {
  server {
    listen 127.0.0.1:${nginx} proxy_protocol;
    return "+OK from $proxy_protocol_addr $proxy_protocol_port to $proxy_protocol_server_addr $proxy_protocol_server_port\\r\\n";
  }
}
`,
      )
      const words = [nginxFile(), '-e', 'stderr', '-p', directory.path, '-c', `${directory.path}/nginx.conf`]
      const server = new Program('nginx', words)
      const sslwrap = await Sslwrap.start({ listeners: [{ backend: `127.0.0.1:${nginx}`, preamble }] })
      try {
        await server.waitFor('listening', () => isListening(nginx))
        const raw = dial(sslwrap.port, '127.0.0.41')
        const client = new Conversation('client', connect({ socket: raw, rejectUnauthorized: false }))
        const { text } = await client.expect(/^\+OK/)
        expect(text).toBe(`+OK from 127.0.0.41 ${raw.localPort} to 127.0.0.1 ${sslwrap.port}`)
        await client.expectEnd()
        client.close()
      } finally {
        await sslwrap.stop()
        await server.stop()
        directory.remove()
      }
    },
  )
})
