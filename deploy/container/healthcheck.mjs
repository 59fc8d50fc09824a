// healthcheck.mjs ADDRESS [GREETING]: ADDRESS is a port of this container, `tls:` and a port, or
// the path of a Unix socket. The exit status is 0 if the program answers within 4 s: with GREETING,
// or by closing the connection after this side has closed. A connection alone proves nothing,
// because the kernel also accepts it for a program that hangs.
import { connect } from 'node:net'
import { connect as connectTls } from 'node:tls'

const DEADLINE_MS = 4000

const [address = '', greeting = ''] = process.argv.slice(2)
const end = problem => {
  if (problem !== undefined) process.stderr.write(`healthcheck: ${address}: ${problem}\n`)
  process.exit(problem === undefined ? 0 : 1)
}
const host = '127.0.0.1'
const socket = address.startsWith('tls:')
  ? connectTls({ host, port: Number(address.slice('tls:'.length)), rejectUnauthorized: false })
  : connect(/^\d+$/.test(address) ? { host, port: Number(address) } : { path: address })
let received = ''
socket.on('connect', () => {
  if (greeting === '') socket.end()
})
socket.on('data', data => {
  received += data.toString('latin1')
  if (greeting !== '' && received.length >= greeting.length)
    end(received.startsWith(greeting) ? undefined : `unexpected greeting ${JSON.stringify(received)}`)
})
socket.on('error', error => end(error.message))
socket.on('close', () => end(greeting === '' ? undefined : 'closed without a greeting'))
setTimeout(() => end('no answer'), DEADLINE_MS)
