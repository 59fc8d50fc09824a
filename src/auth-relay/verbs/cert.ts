import { createPrivateKey, X509Certificate } from 'node:crypto'
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { messageOf, UsageFault } from '../../base/errors.ts'
import { formatDuration } from '../../settings/duration.ts'
import { loadSettingsFile, type Settings } from '../../settings/settings.ts'
import { isSelfSigned, pemFile } from '../certificates.ts'
import { formatMoment } from '../text/moment.ts'
import { printable } from '../text/terminal.ts'
import { type Verb, withConfigOption } from '../verb.ts'

/** `auth-relay cert`: shows the certificates, checks them, and makes a request for a new one. */
export const cert: Verb = (program, { environment, print }, choose) => {
  withConfigOption(program.command('cert'))
    .description('show and check the certificates of sslwrap, or make a request for a real one')
    .option('--csr <names...>', 'print a certificate request (PKCS #10, PEM) for these names')
    .option('--key <file>', 'with --csr: RSA key to use; made if missing. Without it sslwrap.key')
    .option('--json', 'print one JSON object a line')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay cert
  auth-relay cert --csr pop.example.org mail.example.org > request.pem

Put the answer of the authority into sslwrap.cert. sslwrap reads the file again after
each change and at SIGHUP.
Exit status 1 if a certificate is missing, has ended, or is not that of its key.`,
    )
    .action((options: Options) => {
      choose({
        kind: 'command',
        run: async () => {
          const { sslwrap } = loadSettingsFile(resolve(options.config), environment).settings
          if (options.csr !== undefined) {
            // Loaded here alone, because node-forge is a third of the code of auth-relay.
            const { certificateRequest } = await import('../certificate-request.ts')
            print(certificateRequest(options.csr, resolve(options.key ?? sslwrap.key)))
            return 0
          }
          let isGood = true
          for (const { cert, key = cert } of certificatesOf(sslwrap)) {
            if (!existsSync(cert)) {
              const result = cert === sslwrap.cert ? 'makes a self-signed one at its first start' : 'will not start'
              const fault = `There is no ${cert}: sslwrap ${result}.`
              print(options.json === true ? `${JSON.stringify({ file: cert, key, fault })}\n` : `${fault}\n`)
              isGood = false
              continue
            }
            const facts = factsOf(cert, key)
            print(options.json === true ? `${JSON.stringify(facts)}\n` : formatFacts(facts))
            isGood &&= facts.daysLeft >= 0 && facts.keyFits
          }
          return isGood ? 0 : 1
        },
      })
    })
}

type Options = { config: string; csr?: string[]; key?: string; json?: true }

type Facts = {
  readonly file: string
  readonly key: string
  readonly keyFits: boolean
  readonly names: string
  readonly issuer: string
  readonly selfSigned: boolean
  readonly from: string
  readonly until: string
  readonly daysLeft: number
  readonly sha256: string
}

/** Every pair that sslwrap uses, each once. */
function certificatesOf({ cert, key, listener, certificate }: Settings['sslwrap']): readonly CertificateFiles[] {
  const own = listener.flatMap(({ cert, key }) => (cert === undefined ? [] : [{ cert, key }]))
  const common = listener.length > 0 && own.length === listener.length ? [] : [{ cert, key }]
  const pairs = [...common, ...own, ...certificate].map(pair => [`${pair.cert}\0${pair.key}`, pair] as const)
  return [...new Map(pairs).values()]
}

type CertificateFiles = { readonly cert: string; readonly key?: string | undefined }

function factsOf(file: string, key: string): Facts {
  let certificate: X509Certificate
  const octets = pemFile(file)
  try {
    certificate = new X509Certificate(octets)
  } catch (error) {
    throw new UsageFault(`${file} does not contain a certificate in PEM form: ${messageOf(error)}`, error)
  }
  return {
    file,
    key,
    keyFits: isKeyOf(certificate, key),
    names: certificate.subjectAltName ?? certificate.subject.replaceAll('\n', ', '),
    issuer: certificate.issuer.replaceAll('\n', ', '),
    selfSigned: isSelfSigned(certificate),
    from: certificate.validFromDate.toISOString(),
    until: certificate.validToDate.toISOString(),
    daysLeft: Math.floor((certificate.validToDate.getTime() - Date.now()) / 86_400_000),
    sha256: certificate.fingerprint256,
  }
}

/** @throws UsageFault if the key is missing or cannot be used. */
function isKeyOf(certificate: X509Certificate, file: string): boolean {
  const octets = pemFile(file)
  try {
    return certificate.checkPrivateKey(createPrivateKey(octets))
  } catch (error) {
    throw new UsageFault(`${file} does not contain a private key in PEM form: ${messageOf(error)}`, error)
  }
}

function formatFacts({ file, key, keyFits, names, issuer, selfSigned, from, until, sha256 }: Facts): string {
  const left = (Date.parse(until) - Date.now()) / 1000
  return `${file}
  names   ${printable(names)}
  issuer  ${selfSigned ? 'itself: clients show a warning; see auth-relay cert --help for a real one' : printable(issuer)}
  valid   ${formatMoment(new Date(from))} to ${formatMoment(new Date(until))} (${left > 0 ? `${formatDuration(left)} left` : 'ended'})
  key     ${key} ${keyFits ? 'belongs to the certificate' : 'DOES NOT BELONG TO THE CERTIFICATE: set certificate and key to the files of one pair'}
  sha256  ${sha256}
`
}
