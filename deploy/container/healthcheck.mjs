// healthcheck.mjs ADDRESS [GREETING]: ADDRESS is a port of this container or the path of a Unix socket. Exit status 0 if it accepts and, where a
// GREETING is named, begins with it.
import { connect } from 'node:net'

const [address = '', greeting = ''] = process.argv.slice(2)
const socket = connect(/^\d+$/.test(address) ? { host: '127.0.0.1', port: Number(address) } : { path: address })
const end = (problem = '') => {
  if (problem !== '') process.stderr.write(`healthcheck: ${address}: ${problem}\n`)
  process.exit(problem === '' ? 0 : 1)
}
let heard = ''
socket.on('connect', () => {
  if (greeting === '') end()
})
socket.on('data', data => {
  heard += data.toString('latin1')
  if (heard.length >= greeting.length) end(heard.startsWith(greeting) ? '' : `it says ${JSON.stringify(heard)}`)
})
socket.on('error', error => end(error.message))
socket.on('close', () => end('closed without a greeting'))
setTimeout(() => end('no answer'), 4000)
