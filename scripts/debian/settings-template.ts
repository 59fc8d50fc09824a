import { formatSettings } from '../../src/auth-relay/text/settings-text.ts'

/** Path of the JSON schema of the settings file in the Debian package. */
export const DEBIAN_SCHEMA = '/usr/share/auth-relay/auth-relay.schema.json'

/**
 * The settings file of the Debian package. It contains no secret, so that every program can read it
 * under its own account. Each secret is in a file that only its program reads
 * (deploy/debian/postinst makes these files).
 */
export const debianSettings = (): string =>
  formatSettings(
    {
      '': { configured: false },
      database: {
        dbpass_file: '/etc/auth-relay/dbpass',
        wrap_dbpass_file: '/etc/auth-relay/wrap-dbpass',
        status_dbpass_file: '/etc/auth-relay/status-dbpass',
      },
      popup: { passwd_file: '/etc/auth-relay/passwd', ssl_hack_pass: '/etc/auth-relay/sslhack.pass' },
      sslwrap: { cert: '/etc/ssl/certs/ssl-cert-snakeoil.pem', key: '/etc/ssl/private/ssl-cert-snakeoil.key' },
      authd: { user: 'auth-relay', usage_users: ['auth-relay-gate'] },
    },
    {
      schema: DEBIAN_SCHEMA,
      head: [
        'Settings of auth-relay: POP before SMTP. auth-relay.toml(5) explains every one.',
        'A line that begins with # followed by a name shows a default; remove the # to change it.',
        'Nothing starts until configured is true. Check this file and the host with: auth-relay check',
        'A short file for one kind of site in place of this one: auth-relay init --for postfix|postfix-popup|exim|qmail|logs',
        'The next steps are in /usr/share/doc/auth-relay/INSTALL.md.',
      ],
      withDefaults: true,
    },
  )
